//! A server's status as a table for people.

use std::fmt::Write as _;

use crate::config::ServerState;
use crate::status::text::{calls, latency};
use crate::status::{BackendStatus, PolicyStatus, Status, UpstreamStatus};

/// Characters of a name that are shown.
const NAME_MAX: usize = 24;

/// One block of lines for each upstream.
pub(super) fn render(status: &Status) -> String {
    let blocks: Vec<String> = status.upstreams.iter().map(block).collect();
    blocks.join("\n")
}

fn block(upstream: &UpstreamStatus) -> String {
    let backends = &upstream.backends;
    let total: u64 = backends.iter().map(|backend| backend.picks).sum();
    let head = [
        "backend",
        "picks",
        "share",
        "in flight",
        "p50",
        "p99",
        "failures",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(backends.iter().map(|backend| row(backend, total)));
    let name_width = rows
        .iter()
        .map(|[name, ..]| name.chars().count())
        .max()
        .unwrap_or_default();
    let mut text = String::new();
    for [name, picks, share, in_flight, p50, p99, failures] in rows {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "  {name:<name_width$}  {picks:>9}  {share:>7}  {in_flight:>9}  {p50:>8}  {p99:>8}  {failures:>8}"
        );
    }
    text + &policy_line(&upstream.policy)
}

fn row(backend: &BackendStatus, total: u64) -> [String; 7] {
    let mut name: String = backend.name.chars().take(NAME_MAX).collect();
    name += match backend.state {
        ServerState::Up => "",
        ServerState::Draining => " (draining)",
        ServerState::Down => " (down)",
    };
    let share = if total == 0 {
        "-".to_owned()
    } else {
        format!("{:.1} %", backend.picks as f64 * 100.0 / total as f64)
    };
    let [p50, p99] = latency(backend);
    [
        name,
        backend.picks.to_string(),
        share,
        backend.in_flight.to_string(),
        p50,
        p99,
        backend.failures.to_string(),
    ]
}

fn policy_line(policy: &PolicyStatus) -> String {
    let Some(plugin) = &policy.plugin else {
        return format!("  policy {policy}: the host's own, no plugin\n");
    };
    format!("  policy {policy}: {}\n", calls(plugin))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::BackendId;
    use crate::status::PluginStatus;

    fn backend(name: &str, picks: u64, latency_us: Option<[u64; 2]>) -> BackendStatus {
        BackendStatus {
            id: BackendId(1),
            name: name.to_owned(),
            address: "127.0.0.1:3000".to_owned(),
            weight: 1,
            state: ServerState::Up,
            in_flight: 3,
            picks,
            failures: 0,
            latency: latency_us.map(|us| us.map(Duration::from_micros)),
            overridden: None,
        }
    }

    fn status(policy: &str, plugin: Option<PluginStatus>, backends: Vec<BackendStatus>) -> Status {
        Status {
            upstreams: vec![UpstreamStatus {
                name: "demo".to_owned(),
                policy: PolicyStatus {
                    name: policy.to_owned(),
                    plugin,
                    last_swap: None,
                    quarantine: None,
                },
                backends,
            }],
            ..Status::default()
        }
    }

    fn plugin(calls: u64, mean_call_ns: Option<u64>) -> Option<PluginStatus> {
        Some(PluginStatus {
            name: "least-conn".to_owned(),
            version: "0.1.0".to_owned(),
            promises: Vec::new(),
            digest: String::new(),
            calls,
            failures: 2,
            mean_call: mean_call_ns.map(Duration::from_nanos),
        })
    }

    #[test]
    fn a_busy_upstream() {
        let down = BackendStatus {
            state: ServerState::Down,
            failures: 7,
            ..backend("cedar", 120, Some([40_960, 57_344]))
        };
        let backends = vec![
            backend("amber", 940, Some([2304, 3072])),
            backend("birch", 940, Some([999, 12_288])),
            down,
        ];
        let expected = "  backend           picks    share  in flight       p50       p99  failures
  amber               940   47.0 %          3   2.30 ms   3.07 ms         0
  birch               940   47.0 %          3    999 us   12.3 ms         0
  cedar (down)        120    6.0 %          3   41.0 ms   57.3 ms         7
  policy least-conn 0.1.0: 2000 calls, 412 ns each, 2 failures
";
        assert_eq!(
            render(&status("least-conn", plugin(2000, Some(412)), backends)),
            expected
        );
    }

    #[test]
    fn an_upstream_before_its_first_request() {
        let expected = "  backend      picks    share  in flight       p50       p99  failures
  amber            0        -          3         -         -         0
  policy mine (least-conn 0.1.0): 0 calls, none timed yet, 2 failures
";
        let backends = vec![backend("amber", 0, None)];
        assert_eq!(
            render(&status("mine", plugin(0, None), backends.clone())),
            expected
        );
        let shown = render(&status("rotation", None, backends));
        assert!(shown.ends_with("  policy rotation: the host's own, no plugin\n"));
    }
}
