//! What a plan says in the words of each major.

/// Whether workers take part in a plan, and are given what the leader evaluates once: majors to 16 list these values
/// below the Gather node, later ones name the plan of each where it is used.
pub fn gives_workers_values(plan: &[String]) -> bool {
    let Some(gather) = plan.iter().position(|line| line.contains("Gather")) else { return false };
    let (above, below) = plan.split_at(gather);
    let evaluated_by_leader = |line: &String| line.trim_start().starts_with("InitPlan");
    below.iter().any(|line| line.contains("Params Evaluated"))
        || above.iter().any(evaluated_by_leader)
            && !below.iter().any(evaluated_by_leader)
            && below.iter().any(|line| line.contains("(InitPlan "))
}

/// Whether a plan compares a column with values that are evaluated once.
pub fn compares_with_evaluated(plan: &str, column: &str) -> bool {
    ["$", "(InitPlan "].iter().any(|value| plan.contains(&format!("{column} = ANY ({value}")))
}
