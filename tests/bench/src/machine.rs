//! What the kernel counts: time of a processor, time and memory of processes.

use std::fs;

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_setaffinity};

/// Where the proxy runs.
pub(crate) const PROXY_CPU: usize = 0;
/// Where the load and the origins run.
pub(crate) const LOAD_CPU: usize = 1;

/// Binds this thread, and the processes that it starts from now on, to one CPU.
pub(crate) fn bind(cpu: usize) -> anyhow::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set)
        .with_context(|| format!("cannot run on CPU {cpu}: two are needed"))
}

/// Clock ticks that a CPU has spent, since the machine was started.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Ticks {
    /// user, nice, system, irq, softirq.
    pub(crate) busy: u64,
    /// user, nice, system: what processes are charged with, too.
    pub(crate) tasks: u64,
    /// The host of a virtual machine ran something else.
    pub(crate) steal: u64,
    pub(crate) all: u64,
}

impl Ticks {
    /// Those of one CPU by now.
    pub(crate) fn now(cpu: usize) -> anyhow::Result<Ticks> {
        let text = fs::read_to_string("/proc/stat")?;
        Ticks::parse(&text, cpu).with_context(|| format!("/proc/stat says nothing of CPU {cpu}"))
    }

    fn parse(text: &str, cpu: usize) -> Option<Ticks> {
        let name = format!("cpu{cpu}");
        let line = text
            .lines()
            .find(|line| line.split(' ').next() == Some(&name))?;
        let figures: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .map_while(|figure| figure.parse().ok())
            .collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; time of guests is in user already.
        let &[user, nice, system, idle, iowait, irq, softirq, steal, ..] = figures.as_slice()
        else {
            return None;
        };
        let busy = user + nice + system + irq + softirq;
        Some(Ticks {
            busy,
            tasks: user + nice + system,
            steal,
            all: busy + steal + idle + iowait,
        })
    }

    /// What has been spent since then.
    pub(crate) fn since(self, then: Ticks) -> Ticks {
        Ticks {
            busy: self.busy.saturating_sub(then.busy),
            tasks: self.tasks.saturating_sub(then.tasks),
            steal: self.steal.saturating_sub(then.steal),
            all: self.all.saturating_sub(then.all),
        }
    }

    /// The busy share of all.
    pub(crate) fn busy_share(self) -> f64 {
        self.busy as f64 / self.all.max(1) as f64
    }

    /// The stolen share of all.
    pub(crate) fn steal_share(self) -> f64 {
        self.steal as f64 / self.all.max(1) as f64
    }
}

/// Seconds of `ticks`.
pub(crate) fn seconds(ticks: u64) -> f64 {
    ticks as f64 / rustix::param::clock_ticks_per_second() as f64
}

/// A process and its descendants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Ticks in user mode and in the kernel.
    pub(crate) ticks: u64,
    pub(crate) resident_bytes: u64,
}

impl Usage {
    /// What they have used by now.
    pub(crate) fn of(process: u32) -> Usage {
        let mut total = Usage::default();
        for process in tree(process) {
            let text =
                |file| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
            total.ticks += process_ticks(&text("stat")).unwrap_or(0);
            total.resident_bytes += resident(&text("status")).unwrap_or(0);
        }
        total
    }
}

/// A process and all that descend from it.
fn tree(root: u32) -> Vec<u32> {
    let mut found = vec![root];
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        next += 1;
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
        let children = children.unwrap_or_default();
        found.extend(
            children
                .split_whitespace()
                .filter_map(|id| id.parse::<u32>().ok()),
        );
    }
    found
}

/// utime and stime: the 14th and 15th figure, where the second is a name that may have spaces and is in parentheses.
fn process_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let figures = rest.split(' ').skip(11).take(2);
    figures.map(|figure| figure.parse::<u64>().ok()).sum()
}

fn resident(status: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// The kind of machine, without its name.
pub(crate) fn class() -> String {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    let info = text("/proc/cpuinfo");
    let value = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        line.split_once(": ").map(|(_, value)| value.to_owned())
    };
    let virtual_machine = info.contains(" hypervisor ");
    let release = text("/proc/sys/kernel/osrelease");
    let version: Vec<&str> = release.trim().split(['-', '+']).take(1).collect();
    format!(
        "{} CPUs, {}{}, Linux {}",
        info.lines()
            .filter(|line| line.starts_with("processor"))
            .count(),
        value("model name").unwrap_or_else(|| "unknown".to_owned()),
        if virtual_machine {
            " (virtual machine)"
        } else {
            ""
        },
        version.join("")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_those_of_the_cpu() {
        let text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 4 8 16 32 64 128 1 1\ncpu1 0 0 1 0 0 0 0 0 0 0\ncpu10 5\n";
        let ticks = Ticks::parse(text, 0).unwrap();
        assert_eq!(
            (ticks.busy, ticks.tasks, ticks.steal, ticks.all),
            (103, 7, 128, 255)
        );
        assert_eq!(Ticks::parse(text, 1).unwrap().busy_share(), 1.0);
        assert_eq!(Ticks::parse(text, 2), None);
        let later = Ticks {
            busy: 113,
            tasks: 7,
            steal: 128,
            all: 275,
        };
        assert_eq!(later.since(ticks).busy_share(), 0.5);
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (a) b) c) S 1 7 7 0 -1 4194560 1 2 3 4 11 22 33 44 20 0 1 0 5 6 7";
        assert_eq!(process_ticks(stat), Some(33));
        assert_eq!(process_ticks("7 (a) S 1"), Some(0));
        assert_eq!(
            resident("VmPeak:\t 1 kB\nVmRSS:\t    12 kB\n"),
            Some(12 * 1024)
        );
    }

    #[test]
    fn this_process_uses_something() {
        assert!(Usage::of(std::process::id()).resident_bytes > 0);
    }
}
