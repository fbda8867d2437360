//! The rows of the matrix: what is sent, and through whom.

use crate::peer::{Peer, Policy, Programs};
use crate::round::Case;
use crate::traffic::{Exchange, Traffic};

/// Servers behind a proxy unless a row is about their number.
const BACKENDS: usize = 4;
/// Connections that carry requests unless a row is about their number.
const CONNECTIONS: usize = 64;
/// Of the most that the first contender can do, in the rows about latency.
const MODERATE_LOAD: f64 = 0.7;
/// Bytes of a WebSocket message.
const MESSAGE: usize = 128;

/// One line of the matrix.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// Whether it takes part unless others are named.
    pub(crate) short: bool,
    pub(crate) figure: Figure,
    pub(crate) load: Load,
    kind: Kind,
}

/// Which figure is compared.
#[derive(Clone, Copy, Debug, Eq, PartialEq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    CpuPerResponse,
    P99,
}

/// How requests are paced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Load {
    /// Each connection sends the next as soon as the one before is answered.
    Closed,
    /// At a rate that is this share of the most that the first contender can do.
    Share(f64),
}

/// What a row is about.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// The same traffic through everybody.
    Peers(Shape, &'static [Peer]),
    /// The same proxy as something grows. The first size is what the others are compared with.
    Growth(Dimension, &'static [usize]),
}

#[derive(Clone, Copy, Debug)]
struct Shape {
    request: usize,
    response: usize,
    connections: usize,
    reuse: bool,
    web_socket: bool,
}

#[derive(Clone, Copy, Debug)]
enum Dimension {
    Backends,
    LeastConnBackends,
    Routes,
    Idle,
}

const SHAPE: Shape = Shape {
    request: 0,
    response: 1024,
    connections: CONNECTIONS,
    reuse: true,
    web_socket: false,
};

const WAYPOST: Peer = Peer::Waypost(Policy::RoundRobin);
const MAIN: &[Peer] = &[
    WAYPOST,
    Peer::Waypost(Policy::Rotation),
    Peer::Waypost(Policy::LeastConn),
    Peer::Relay,
    Peer::Nginx,
    Peer::Haproxy,
    Peer::Envoy,
    Peer::Pingora,
];
const PLAIN: &[Peer] = &[
    WAYPOST,
    Peer::Relay,
    Peer::Nginx,
    Peer::Haproxy,
    Peer::Envoy,
    Peer::Pingora,
];
const SCRIPTED: &[Peer] = &[
    Peer::Waypost(Policy::Edits),
    Peer::NginxLua,
    Peer::HaproxyLua,
    Peer::EnvoyWasm,
];

impl Row {
    /// The whole matrix.
    pub(crate) fn all() -> Vec<Row> {
        let peers = |name, about, shape, peers| Row {
            name,
            about,
            short: false,
            figure: Figure::CpuPerResponse,
            load: Load::Closed,
            kind: Kind::Peers(shape, peers),
        };
        let growth = |name, about, dimension, sizes| Row {
            kind: Kind::Growth(dimension, sizes),
            ..peers(name, about, SHAPE, &[])
        };
        let body = |response| Shape { response, ..SHAPE };
        let connections = |connections| Shape {
            connections,
            ..SHAPE
        };
        let upload = Shape {
            request: 64 * 1024,
            ..SHAPE
        };
        let fresh = Shape {
            reuse: false,
            ..SHAPE
        };
        let web_socket = Shape {
            web_socket: true,
            ..SHAPE
        };
        vec![
            Row {
                short: true,
                ..peers("1k", "64 connections, responses of 1 KiB", SHAPE, MAIN)
            },
            Row {
                short: true,
                ..peers(
                    "edits",
                    "the same, a policy with three reads and two edits",
                    SHAPE,
                    SCRIPTED,
                )
            },
            Row {
                figure: Figure::P99,
                load: Load::Share(MODERATE_LOAD),
                ..peers(
                    "latency",
                    "1 KiB at 70 % of the first contender's most",
                    SHAPE,
                    PLAIN,
                )
            },
            peers("0", "responses without a body", body(0), PLAIN),
            peers("64k", "responses of 64 KiB", body(64 * 1024), PLAIN),
            peers("1m", "responses of 1 MiB", body(1024 * 1024), PLAIN),
            peers("post-64k", "requests of 64 KiB", upload, PLAIN),
            peers("c1", "1 connection", connections(1), PLAIN),
            peers("c512", "512 connections", connections(512), PLAIN),
            peers("close", "a new connection for each request", fresh, PLAIN),
            peers(
                "websocket",
                "messages of 128 bytes, echoed",
                web_socket,
                PLAIN,
            ),
            growth(
                "backends",
                "servers, policy round-robin",
                Dimension::Backends,
                &[10, 100, 1000, 10_000],
            ),
            growth(
                "least-conn",
                "servers, policy least-conn",
                Dimension::LeastConnBackends,
                &[10, 100, 1000],
            ),
            growth(
                "routes",
                "routes",
                Dimension::Routes,
                &[10, 1000, 10_000, 100_000],
            ),
            growth(
                "idle",
                "idle connections beside the 64",
                Dimension::Idle,
                &[64, 1000, 15_000],
            ),
        ]
    }

    /// Those that take part unless others are named.
    pub(crate) fn default_peers(&self) -> Vec<Peer> {
        match self.kind {
            Kind::Peers(_, peers) => peers.to_vec(),
            Kind::Growth(Dimension::LeastConnBackends, _) => vec![Peer::Waypost(Policy::LeastConn)],
            Kind::Growth(..) => vec![WAYPOST, Peer::Nginx],
        }
    }

    /// Whether this row shows how something grows.
    pub(crate) fn is_growth(&self) -> bool {
        matches!(self.kind, Kind::Growth(..))
    }

    /// The contenders, the one that the others are compared with first. `waypost` are the binaries to compare, each
    /// with a name, which is empty if there is only one. In a row about growth each peer is compared with itself.
    pub(crate) fn cases(&self, waypost: &[(String, Programs)], peers: &[Peer]) -> Vec<Case> {
        let mut cases = Vec::new();
        for case in self.contenders(peers) {
            // Each peer once, but each binary of Waypost.
            let binaries = match case.peer {
                Peer::Waypost(_) => waypost,
                _ => waypost.get(..1).unwrap_or_default(),
            };
            for (name, programs) in binaries {
                let mut case = case.clone();
                case.programs = programs.clone();
                if binaries.len() > 1 {
                    case.label += &format!(" ({name})");
                }
                cases.push(case);
            }
        }
        cases
    }

    fn contenders(&self, peers: &[Peer]) -> Vec<Case> {
        let case = |peer: Peer, shape: Shape| Case {
            label: peer.name().to_owned(),
            peer,
            programs: Programs::default(),
            backends: BACKENDS,
            routes: 0,
            traffic: shape.traffic(),
        };
        let (dimension, sizes) = match self.kind {
            Kind::Peers(shape, _) => return peers.iter().map(|peer| case(*peer, shape)).collect(),
            Kind::Growth(dimension, sizes) => (dimension, sizes),
        };
        let sized = |peer: Peer, size: usize| {
            let mut case = case(peer, SHAPE);
            case.label += &format!(" {size}");
            match dimension {
                Dimension::Backends | Dimension::LeastConnBackends => case.backends = size,
                Dimension::Routes => case.routes = size,
                Dimension::Idle => case.traffic.idle = size,
            }
            case
        };
        let of = |peer: &Peer| {
            sizes
                .iter()
                .map(|size| sized(*peer, *size))
                .collect::<Vec<_>>()
        };
        peers.iter().flat_map(of).collect()
    }
}

impl Shape {
    fn traffic(self) -> Traffic {
        Traffic {
            connections: self.connections,
            idle: 0,
            rate: None,
            reuse: self.reuse,
            exchange: if self.web_socket {
                Exchange::web_socket(MESSAGE)
            } else {
                Exchange::http(self.request, self.response, self.reuse)
            },
            required: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn named(names: &[&str]) -> Vec<(String, Programs)> {
        names
            .iter()
            .map(|name| ((*name).to_owned(), Programs::default()))
            .collect()
    }

    #[test]
    fn rows_have_names_of_their_own_and_contenders() {
        let rows = Row::all();
        let names: BTreeSet<&str> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), rows.len());
        for row in rows {
            let cases = row.cases(&named(&[""]), &row.default_peers());
            assert!(cases.len() > 1, "{}", row.name);
            assert!(cases[0].label.starts_with("waypost"), "{}", row.name);
        }
    }

    #[test]
    fn several_binaries_stand_beside_one_another() {
        let row = &Row::all()[0];
        let cases = row.cases(&named(&["new", "old"]), &[WAYPOST, Peer::Relay]);
        let labels: Vec<&str> = cases.iter().map(|case| case.label.as_str()).collect();
        assert_eq!(labels, ["waypost (new)", "waypost (old)", "relay"]);
    }
}
