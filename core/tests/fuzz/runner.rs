//! Runs one target against mutated inputs for a while. What leads to an outcome that was not seen before is mutated
//! further: that stands in for knowing which code ran.

use std::cell::Cell;
use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Once;
use std::time::{Duration, Instant};

use fastrand::Rng;

/// What an input led to; inputs of different outcomes are kept.
pub type Outcome = String;
/// Makes one change to an input, with parts of another.
pub type Mutate = fn(&mut Rng, &mut Vec<u8>, &[u8]);
/// Panics where a promise is broken.
pub type Target = fn(&[u8]) -> Outcome;

/// Seconds for each target where the environment does not say.
const SECONDS: f64 = 3.0;
/// An input that takes longer hangs, on however busy a machine.
const HANGS: Duration = Duration::from_secs(20);
/// Inputs that are kept at a time.
const MOST_KEPT: usize = 4_096;
/// Inputs of a target in the corpus, and bytes of each.
const MOST_IN_CORPUS: usize = 120;
const MOST_CORPUS_BYTES: usize = 300;

/// Bytes that a target may hold for an input of so many bytes.
fn memory_limit(length: usize) -> u64 {
    (1 << 20) + 256 * length as u64
}

fn variable<T: std::str::FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is \"{text}\"")))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text");
        text
    })
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
}

/// Panics of targets are reported once, with the input that led to them.
fn keep_quiet() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
}

/// Whether the target keeps its promises on an input, and what it led to.
fn attempt(target: Target, input: &[u8]) -> Result<Outcome, String> {
    keep_quiet();
    QUIET.set(true);
    let begun = Instant::now();
    let mut outcome = Err("nothing".to_owned());
    let memory = allocation_counter::measure(|| {
        outcome = catch_unwind(AssertUnwindSafe(|| target(input))).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
        });
    });
    QUIET.set(false);
    let outcome = outcome?;
    let (held, limit) = (memory.bytes_max, memory_limit(input.len()));
    if held > limit {
        return Err(format!("{held} bytes of memory for an input of {} ({limit} allowed)", input.len()));
    }
    let took = begun.elapsed();
    if took > HANGS { Err(format!("it took {took:?}")) } else { Ok(outcome) }
}

/// The shortest input that is left of one by taking parts away, and still fails.
fn shortened(target: Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut size = input.len() / 2;
    while size > 0 {
        let mut start = 0;
        while start < input.len() {
            let mut shorter = input.clone();
            shorter.drain(start..(start + size).min(input.len()));
            if attempt(target, &shorter).is_err() { input = shorter } else { start += size }
        }
        size /= 2;
    }
    input
}

fn corpus_file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(format!("{name}.hex"))
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(corpus_file(name)).unwrap_or_default();
    text.lines().map(super::golden::bytes).collect()
}

/// Throws mutated inputs at a target until its time is over.
pub fn fuzz(name: &str, seeds: Vec<Vec<u8>>, mutate: Mutate, target: Target) {
    if let Some(input) = variable::<String>("PLIMSOLL_FUZZ_INPUT") {
        let outcome = attempt(target, &super::golden::bytes(&input));
        println!("{name}: {outcome:?}");
        assert!(outcome.is_ok(), "{outcome:?}");
        return;
    }
    let seed = variable("PLIMSOLL_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    let seconds = variable("PLIMSOLL_FUZZ_SECONDS").unwrap_or(SECONDS);
    let mut rng = Rng::with_seed(seed);
    let mut seen = HashSet::new();
    let mut kept: Vec<Vec<u8>> = Vec::new();
    let mut take = |input: Vec<u8>, kept: &mut Vec<Vec<u8>>, rng: &mut Rng| match attempt(target, &input) {
        Ok(outcome) => {
            let mut hasher = DefaultHasher::new();
            outcome.hash(&mut hasher);
            if seen.insert(hasher.finish()) {
                match kept.len() < MOST_KEPT {
                    true => kept.push(input),
                    false => kept[rng.usize(0..MOST_KEPT)] = input,
                }
            }
        }
        Err(why) => {
            let short = shortened(target, input);
            panic!(
                "{name}, seed {seed}: {why}\nagain with PLIMSOLL_FUZZ_INPUT={} cargo test -p plimsoll-core --test \
                 fuzz {name}",
                hex(&short)
            );
        }
    };
    let known = corpus(name);
    for input in known.iter().chain(&seeds) {
        take(input.clone(), &mut kept, &mut rng);
    }
    assert!(!kept.is_empty(), "{name} has no seeds");
    let begun = Instant::now();
    let mut inputs = 0u64;
    while begun.elapsed().as_secs_f64() < seconds {
        for _ in 0..100 {
            let mut input = kept[rng.usize(0..kept.len())].clone();
            for _ in 0..rng.u8(1..5) {
                let other = rng.usize(0..kept.len());
                mutate(&mut rng, &mut input, &kept[other]);
            }
            take(input, &mut kept, &mut rng);
            inputs += 1;
        }
    }
    println!("{name}: seed {seed}, {inputs} inputs in {seconds} s, {} outcomes", kept.len());
    if variable::<u8>("PLIMSOLL_FUZZ_KEEP").is_some() {
        let mut lines: Vec<String> =
            kept.iter().filter(|input| input.len() <= MOST_CORPUS_BYTES).map(|input| hex(input)).collect();
        lines.sort_by_key(|line| (line.len(), line.clone()));
        lines.dedup();
        // Some of each length.
        let step = lines.len().div_ceil(MOST_IN_CORPUS).max(1);
        let lines: Vec<String> = lines.into_iter().step_by(step).collect();
        std::fs::write(corpus_file(name), lines.join("\n") + "\n").expect("the corpus is written");
    }
}
