//! What processes used: processor time of a backend, memory of a client.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use nix::unistd::{SysconfVar, sysconf};
use postgres::Client;

/// How often a client's memory is looked at. The kernel keeps the peak, so only the very end can be missed.
const MEMORY_INTERVAL: Duration = Duration::from_millis(5);

/// Seconds of wall and processor time.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From start to end.
    pub wall: f64,
    /// Processor time of the backend, user and system.
    pub processor: f64,
}

/// The wall times.
pub fn wall(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.wall).collect()
}

/// The processor times.
pub fn processor(costs: &[Cost]) -> Vec<f64> {
    costs.iter().map(|cost| cost.processor).collect()
}

/// Measures what the work costs, for whoever waits and for the backend of `connection`.
///
/// # Errors
/// When the work fails, or the backend's times cannot be read.
pub fn cost(connection: &mut Client, work: impl FnOnce(&mut Client) -> Result<()>) -> Result<Cost> {
    let pid: i32 = connection.query_one("SELECT pg_catalog.pg_backend_pid()", &[])?.get(0);
    let (before, begun) = (processor_seconds(pid)?, Instant::now());
    work(connection)?;
    let wall = begun.elapsed().as_secs_f64();
    Ok(Cost { wall, processor: processor_seconds(pid)? - before })
}

/// Processor time that a process has used so far, in seconds.
fn processor_seconds(pid: i32) -> Result<f64> {
    Ok(Times::of(pid)?.own)
}

/// Processor time that a server has used so far, in seconds: the process, those that it started, and of those that
/// ended what they had used.
///
/// # Errors
/// When the process is not there.
pub fn server_seconds(pid: i32) -> Result<f64> {
    let server = Times::of(pid)?;
    let mut seconds = server.own + server.ended;
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(other) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that ends meanwhile is the parent's to tell of.
        if let Ok(times) = Times::of(other)
            && times.parent == pid
        {
            seconds += times.own;
        }
    }
    Ok(seconds)
}

/// Processor time that the programs used which we ran and whose end we saw, in seconds.
///
/// # Errors
/// When the system does not tell.
pub fn programs_seconds() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

/// Processor times of a process in seconds, user and system.
struct Times {
    parent: i32,
    own: f64,
    /// Of the processes that it started and that ended.
    ended: f64,
}

impl Times {
    fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/stat");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        // The name in brackets may hold anything. After it, the parent is the 2nd field, the times are the 12th to 15th.
        let fields: Vec<&str> =
            text.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
        let number = |place: usize| fields.get(place).and_then(|field| field.parse::<i64>().ok());
        let (Some(parent), Some(user), Some(system), Some(ended_user), Some(ended_system)) =
            (number(1), number(11), number(12), number(13), number(14))
        else {
            bail!("{path} is not as expected")
        };
        let hertz = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100) as f64;
        Ok(Times {
            parent: i32::try_from(parent)?,
            own: (user + system) as f64 / hertz,
            ended: (ended_user + ended_system) as f64 / hertz,
        })
    }
}

/// One run of the client.
#[derive(Debug, Clone, Copy)]
pub struct ClientRun {
    /// From start to end.
    pub seconds: f64,
    /// The most memory it had, in MiB.
    pub peak_mib: f64,
}

/// Runs the client to its end; its time and peak memory.
///
/// # Errors
/// When it cannot be run, or ends with another code than these.
pub fn run_client(mut command: Command, codes: &[i32]) -> Result<ClientRun> {
    let begun = Instant::now();
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().context("cannot run the client")?;
    let status_file = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak_kib = peak_kib.max(peak_memory(&status_file).unwrap_or(0));
        std::thread::sleep(MEMORY_INTERVAL);
    };
    let seconds = begun.elapsed().as_secs_f64();
    if !status.code().is_some_and(|code| codes.contains(&code)) {
        bail!("the client failed ({status})");
    }
    Ok(ClientRun { seconds, peak_mib: peak_kib as f64 / 1024.0 })
}

/// The most memory that a process had so far, in KiB.
fn peak_memory(status_file: &str) -> Option<u64> {
    let text = fs::read_to_string(status_file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}
