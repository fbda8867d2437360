//! A status as text for people.

use std::fmt::Write as _;
use std::time::Duration;

use super::{
    BackendStatus, PluginStatus, PolicyStatus, RouteStatus, Status, SwapStatus, UpstreamStatus,
};

/// Digits of a digest that are shown: enough to tell versions apart.
const DIGEST_DIGITS: usize = 12;

/// All of it: what `waypost status` prints.
pub(crate) fn render(status: &Status) -> String {
    let mut blocks = vec![server(status) + &routes(&status.routes)];
    blocks.extend(status.upstreams.iter().map(upstream));
    blocks.push(policies(&status.upstreams));
    blocks.join("\n")
}

fn server(status: &Status) -> String {
    let listeners: Vec<String> = status.listeners.iter().map(ToString::to_string).collect();
    let replaced = match status.shards_replaced {
        0 => String::new(),
        count => format!(", {count} died and were replaced"),
    };
    format!(
        "up {}, configuration {}, {} connections open, {} accepted, {} shards{replaced}\nlistening on {}\n",
        uptime(status.uptime),
        status.generation,
        status.connections,
        status.accepted,
        status.shards,
        listeners.join(", ")
    )
}

/// `route example.com/api to app`
fn routes(routes: &[RouteStatus]) -> String {
    let line = |route: &RouteStatus| {
        let RouteStatus {
            host,
            path,
            upstream,
        } = route;
        format!("route {host}{path} to {upstream}\n")
    };
    routes.iter().map(line).collect()
}

fn upstream(upstream: &UpstreamStatus) -> String {
    let head = [
        "backend",
        "address",
        "state",
        "weight",
        "in flight",
        "picks",
        "failures",
        "p50",
        "p99",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(upstream.backends.iter().map(backend));
    let said = upstream.backends.iter().filter_map(|backend| {
        let said = backend.overridden.as_ref()?;
        Some(format!("  {} by hand: {said}\n", backend.name))
    });
    format!(
        "upstream {}, policy {}\n{}{}",
        upstream.name,
        upstream.policy.name,
        aligned(&rows, 3),
        said.collect::<String>()
    )
}

fn backend(backend: &BackendStatus) -> [String; 9] {
    let address = match backend.address == backend.name {
        true => "-",
        false => &backend.address,
    };
    let [p50, p99] = latency(backend);
    [
        backend.name.clone(),
        address.to_owned(),
        backend.state.to_string(),
        backend.weight.to_string(),
        backend.in_flight.to_string(),
        backend.picks.to_string(),
        backend.failures.to_string(),
        p50,
        p99,
    ]
}

/// Each policy once, whoever uses it: its numbers are those of all upstreams.
fn policies(upstreams: &[UpstreamStatus]) -> String {
    let mut seen: Vec<&str> = Vec::new();
    let mut text = String::new();
    for policy in upstreams.iter().map(|upstream| &upstream.policy) {
        if !seen.contains(&policy.name.as_str()) {
            seen.push(&policy.name);
            text += &policy_block(policy);
        }
    }
    text
}

fn policy_block(policy: &PolicyStatus) -> String {
    let mut text = match &policy.plugin {
        Some(plugin) => {
            let digest: String = plugin.digest.chars().take(DIGEST_DIGITS).collect();
            format!("policy {policy}: {}, digest {digest}\n", calls(plugin))
        }
        None if policy.quarantine.is_some() => format!("policy {policy}: not asked\n"),
        None => format!("policy {policy}: the host's own, no plugin\n"),
    };
    if let Some(swap) = &policy.last_swap {
        text += &swap_line(swap);
    }
    if let Some(quarantine) = &policy.quarantine {
        text += &format!("  {quarantine}\n");
    }
    text
}

fn swap_line(swap: &SwapStatus) -> String {
    format!(
        "  swaps: {}; the last built in {}, active after {}, longest pause {}, state handed over: {}, cold starts: {}\n",
        swap.count,
        time(swap.built),
        time(swap.active),
        time(swap.pause),
        swap.handed_over,
        swap.cold
    )
}

/// `2000 calls, 412 ns each, 2 failures`
pub(crate) fn calls(plugin: &PluginStatus) -> String {
    let cost = match plugin.mean_call {
        Some(mean) => format!("{} each", time(mean)),
        None => "none timed yet".to_owned(),
    };
    format!(
        "{} calls, {cost}, {} failures",
        plugin.calls, plugin.failures
    )
}

/// Median and 99th percentile.
pub(crate) fn latency(backend: &BackendStatus) -> [String; 2] {
    match backend.latency {
        Some(latency) => latency.map(time),
        None => ["-".to_owned(), "-".to_owned()],
    }
}

/// Three digits and a unit.
pub(crate) fn time(duration: Duration) -> String {
    let ns = duration.as_nanos();
    let (value, unit) = match ns {
        0..10_000 => return format!("{ns} ns"),
        10_000..1_000_000 => (ns as f64 / 1e3, "us"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    let digits = match value {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{value:.digits$} {unit}")
}

/// `3 days 4 h`, `5 min 12 s`: the two largest units that are there.
fn uptime(uptime: Duration) -> String {
    let seconds = uptime.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (1, _, _) => format!("1 day {hours} h"),
        _ => format!("{days} days {hours} h"),
    }
}

/// Columns as wide as their widest cell: the first `left` flush left, numbers flush right.
fn aligned<const N: usize>(rows: &[[String; N]], left: usize) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for row in rows {
        for (index, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match index < left {
                true => write!(text, "  {cell:<width$}"),
                false => write!(text, "  {cell:>width$}"),
            };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::config::ServerState;

    use super::*;
    use crate::BackendId;

    /// Two upstreams that share a policy, and one without a plugin.
    fn status() -> Status {
        let backend = |name: &str, state, latency_us: Option<[u64; 2]>| BackendStatus {
            id: BackendId(7),
            name: name.to_owned(),
            address: "127.0.0.1:3000".to_owned(),
            weight: 1,
            state,
            in_flight: 3,
            picks: 1200,
            failures: 2,
            latency: latency_us.map(|us| us.map(Duration::from_micros)),
            overridden: (state == ServerState::Draining).then(|| "draining, weight 1".to_owned()),
        };
        let swap = SwapStatus {
            count: 3,
            built: Duration::from_millis(81),
            active: Duration::from_millis(95),
            pause: Duration::from_micros(81),
            handed_over: 4,
            cold: 0,
        };
        let plugin = PluginStatus {
            name: "cookie-hash".to_owned(),
            version: "1.2.0".to_owned(),
            promises: Vec::new(),
            digest: "0123456789abcdef".to_owned(),
            calls: 2000,
            failures: 2,
            mean_call: Some(Duration::from_nanos(412)),
        };
        let upstream = |name: &str, policy: &str, plugin, backends| UpstreamStatus {
            name: name.to_owned(),
            policy: PolicyStatus {
                name: policy.to_owned(),
                plugin,
                last_swap: (policy == "sticky").then(|| swap.clone()),
                quarantine: (policy == "sticky")
                    .then(|| "1.2.1 (0a1b) taken out: traps".to_owned()),
            },
            backends,
        };
        Status {
            uptime: Duration::from_millis(11_520_500),
            listeners: vec![
                "0.0.0.0:8080".parse().unwrap(),
                "[::]:8080".parse().unwrap(),
            ],
            generation: 7,
            shards: 4,
            shards_replaced: 0,
            connections: 12,
            accepted: 4312,
            routes: vec![RouteStatus {
                host: "*.example.com".to_owned(),
                path: "/api".to_owned(),
                upstream: "api".to_owned(),
            }],
            upstreams: vec![
                upstream(
                    "app",
                    "sticky",
                    Some(plugin.clone()),
                    vec![
                        backend("first", ServerState::Up, Some([812, 12_300])),
                        backend("127.0.0.1:3000", ServerState::Draining, None),
                    ],
                ),
                upstream("api", "sticky", Some(plugin), Vec::new()),
                upstream("files", "rotation", None, Vec::new()),
            ],
        }
    }

    #[test]
    fn everything_is_aligned_and_each_policy_there_once() {
        let expected = "\
up 3 h 12 min, configuration 7, 12 connections open, 4312 accepted, 4 shards
listening on 0.0.0.0:8080, [::]:8080
route *.example.com/api to api

upstream app, policy sticky
  backend         address         state     weight  in flight  picks  failures     p50      p99
  first           127.0.0.1:3000  up             1          3   1200         2  812 us  12.3 ms
  127.0.0.1:3000  -               draining       1          3   1200         2       -        -
  127.0.0.1:3000 by hand: draining, weight 1

upstream api, policy sticky
  backend  address  state  weight  in flight  picks  failures  p50  p99

upstream files, policy rotation
  backend  address  state  weight  in flight  picks  failures  p50  p99

policy sticky (cookie-hash 1.2.0): 2000 calls, 412 ns each, 2 failures, digest 0123456789ab
  swaps: 3; the last built in 81.0 ms, active after 95.0 ms, longest pause 81.0 us, state handed over: 4, cold starts: 0
  1.2.1 (0a1b) taken out: traps
policy rotation: the host's own, no plugin
";
        assert_eq!(render(&status()), expected);
    }

    #[test]
    fn json_names_every_unit() {
        let json = serde_json::to_value(status()).unwrap();
        assert_eq!(json["uptime_seconds"], 11_520.5);
        assert_eq!(json["listeners"][0], "0.0.0.0:8080");
        let app = &json["upstreams"][0];
        assert_eq!(app["policy"]["plugin"]["mean_call_us"], 0.412);
        let first = &app["backends"][0];
        assert_eq!((&first["id"], &first["state"]), (&7.into(), &"up".into()));
        assert_eq!(first["latency_us"]["p99"], 12_300.0);
        assert!(app["backends"][1]["latency_us"].is_null());
        assert!(json["upstreams"][2]["policy"]["plugin"].is_null());
    }

    #[test]
    fn times_have_three_digits() {
        for (ns, shown) in [
            (0, "0 ns"),
            (9_999, "9999 ns"),
            (10_000, "10.0 us"),
            (999_900, "1000 us"),
            (1_234_000, "1.23 ms"),
            (99_960_000, "100 ms"),
            (1_500_000_000, "1.50 s"),
        ] {
            assert_eq!(time(Duration::from_nanos(ns)), shown);
        }
    }

    #[test]
    fn uptimes_have_two_units() {
        for (seconds, shown) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min 0 s"),
            (3_600, "1 h 0 min"),
            (90_000, "1 day 1 h"),
            (864_000, "10 days 0 h"),
        ] {
            assert_eq!(uptime(Duration::from_secs(seconds)), shown);
        }
    }
}
