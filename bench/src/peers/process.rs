//! What the operating system says of processes.

use std::fs;
use std::time::Duration;

/// CPU time and memory of a set of processes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// User and system time so far.
    pub(crate) cpu: Duration,
    /// Largest resident set of one of them, bytes.
    pub(crate) max_rss_bytes: u64,
}

impl Usage {
    /// Sums over `pids`; a process that ended counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut usage = Self::default();
        for pid in pids {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            // Fields after the command, which is in parentheses: utime is the 12th, stime the 13th,
            // in ticks of 10 ms; rss, in pages, the 22nd.
            let fields: Vec<&str> =
                stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
            let number = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
            usage.cpu += Duration::from_millis((number(11) + number(12)) * 10);
            usage.max_rss_bytes = usage.max_rss_bytes.max(number(21) * 4_096);
        }
        usage
    }
}

/// The processes that `pid` started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let list = fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

/// Whether a process holds the UDP socket with this local port.
pub(crate) fn listening_port(pid: u32, port: u16) -> bool {
    let Ok(table) = fs::read_to_string("/proc/net/udp") else { return false };
    let inodes: Vec<String> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|fields| fields.get(1).is_some_and(|a| a.ends_with(&format!(":{port:04X}"))))
        .filter_map(|fields| fields.get(9).map(|inode| format!("socket:[{inode}]")))
        .collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| inodes.iter().any(|inode| target.to_string_lossy() == *inode))
}

/// Asks a process to end.
pub(crate) fn interrupt(pid: u32) {
    let _ = std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status();
}

/// Ends a process without asking.
pub(crate) fn kill(pid: u32) {
    let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).status();
}
