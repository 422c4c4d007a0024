//! What a condition of the configuration asks for beside the rows themselves.

/// Calls that answer the same for the same values, and words that have brackets behind them and call nothing.
const SETTLED: [&str; 41] = [
    "abs",
    "all",
    "and",
    "any",
    "as",
    "between",
    "case",
    "cast",
    "ceil",
    "ceiling",
    "char_length",
    "coalesce",
    "concat",
    "else",
    "exists",
    "floor",
    "from",
    "ifnull",
    "in",
    "instr",
    "left",
    "length",
    "like",
    "lower",
    "ltrim",
    "mod",
    "not",
    "nullif",
    "on",
    "or",
    "replace",
    "right",
    "round",
    "rtrim",
    "select",
    "substr",
    "substring",
    "then",
    "trim",
    "upper",
    "when",
];
/// Words that call without brackets.
const CALLS: [&str; 9] = [
    "current_date",
    "current_role",
    "current_time",
    "current_timestamp",
    "current_user",
    "localtime",
    "localtimestamp",
    "session_user",
    "user",
];
/// Texts that are times, to be found out anew each time.
const MOMENTS: [&str; 4] = ["now", "today", "tomorrow", "yesterday"];

/// Whether other rows may fulfil a condition though nobody wrote to the database: it may ask for the time, or for who reads.
/// Where that cannot be told, they may.
pub fn may_move(condition: &str) -> bool {
    let text = condition.to_ascii_lowercase();
    let has = |marks: &[&str]| marks.iter().any(|mark| text.contains(mark));
    // A quote within a comment ends nothing, and one within dollars neither.
    if has(&["--", "/*", "#", "$$"]) && has(&["'", "\"", "`"]) {
        return true;
    }
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let is_word = |character: char| character.is_alphanumeric() || matches!(character, '_' | '$');
        if matches!(first, '\'' | '"' | '`') {
            let within = &rest[1..];
            let end = within.find(first).unwrap_or(within.len());
            if MOMENTS.iter().any(|moment| within[..end].contains(moment)) && first != '`' {
                return true;
            }
            rest = within.get(end + 1..).unwrap_or_default();
            if first != '\'' && rest.trim_start().starts_with('(') {
                return true;
            }
        } else if is_word(first) {
            let end = rest.find(|character| !is_word(character)).unwrap_or(rest.len());
            let (word, behind) = rest.split_at(end);
            let calls = behind.trim_start().starts_with('(') && !SETTLED.contains(&word);
            if calls || CALLS.contains(&word) {
                return true;
            }
            rest = behind;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::may_move;

    #[test]
    fn what_asks_for_the_time_moves_and_what_asks_for_values_does_not() {
        for settled in [
            "branch = 1",
            "branch IN (1, 2) AND NOT (gone OR lower(name) LIKE 'know%')",
            "made >= 5 -- (ours)",
            "id IN (SELECT id FROM others WHERE \"date\" > 3)",
            "day = 3 and it = 'it''s'",
        ] {
            assert_eq!(may_move(settled), settled.contains("know"), "{settled}");
        }
        for moving in [
            "made > date('now', '-30 days')",
            "made > CURRENT_DATE - 30",
            "made > now ( ) - interval '1 day'",
            "made > 'yesterday'",
            "random() > 0",
            "\"now\"() > made",
            "/* ' */ now() > made /* ' */",
            "owner = current_user",
        ] {
            assert!(may_move(moving), "{moving}");
        }
    }
}
