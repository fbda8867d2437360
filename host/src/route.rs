//! Which route a request takes: by host, then by the longest path.

use std::collections::HashMap;

use crate::config::{self, HostPattern};

/// Finds a route in time that depends on the request, not on how many routes there are.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    exact: HashMap<String, Paths>,
    /// By suffix, with its leading dot.
    wildcard: HashMap<String, Paths>,
    any: Paths,
}

/// Index of the route by its path, without a trailing slash: `/` is the empty path.
type Paths = HashMap<String, usize>;

impl RouteTable {
    pub(crate) fn new(routes: &[config::Route]) -> RouteTable {
        let mut table = RouteTable::default();
        for (index, route) in routes.iter().enumerate() {
            let paths = match &route.host {
                HostPattern::Exact(host) => table.exact.entry(host.clone()).or_default(),
                HostPattern::Wildcard(suffix) => table.wildcard.entry(suffix.clone()).or_default(),
                HostPattern::Any => &mut table.any,
            };
            paths.insert(route.path.trim_end_matches('/').to_owned(), index);
        }
        table
    }

    /// The index of the route for a host (with or without port, in any case) and a path.
    ///
    /// The exact host is asked first, then the longest wildcard, then the routes for any host; a host whose routes do
    /// not cover the path leaves it to the next.
    pub(crate) fn find(&self, host: Option<&str>, path: &str) -> Option<usize> {
        if let Some(host) = host.filter(|_| !self.exact.is_empty() || !self.wildcard.is_empty()) {
            let host = normalise(host);
            let found = self.exact.get(&host).and_then(|paths| longest(paths, path));
            if let Some(index) = found.or_else(|| self.find_wildcard(&host, path)) {
                return Some(index);
            }
        }
        longest(&self.any, path)
    }

    fn find_wildcard(&self, host: &str, path: &str) -> Option<usize> {
        if self.wildcard.is_empty() {
            return None;
        }
        let suffixes = host
            .match_indices('.')
            .filter(|(at, _)| *at > 0)
            .filter_map(|(at, _)| host.get(at..));
        suffixes
            .filter_map(|suffix| self.wildcard.get(suffix))
            .find_map(|paths| longest(paths, path))
    }
}

/// The route whose path is the longest that `path` equals or continues after a slash.
fn longest(paths: &Paths, path: &str) -> Option<usize> {
    if paths.is_empty() {
        return None;
    }
    let mut prefix = path.trim_end_matches('/');
    loop {
        if let Some(index) = paths.get(prefix) {
            return Some(*index);
        }
        let end = prefix.rfind('/')?;
        prefix = prefix.get(..end)?;
    }
}

/// Without port and trailing dot, in lower case.
fn normalise(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if !port.ends_with(']') => name,
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(routes: &[(&str, &str)]) -> RouteTable {
        let routes: Vec<config::Route> = routes
            .iter()
            .map(|(host, path)| config::Route {
                host: match host.strip_prefix('*') {
                    Some("") => HostPattern::Any,
                    Some(suffix) => HostPattern::Wildcard(suffix.to_owned()),
                    None => HostPattern::Exact((*host).to_owned()),
                },
                path: (*path).to_owned(),
                upstream: 0,
                upgrades: Vec::new(),
                pass_host: true,
            })
            .collect();
        RouteTable::new(&routes)
    }

    #[test]
    fn routes_are_found_as_documented() {
        let table = table(&[
            ("example.com", "/"),
            ("example.com", "/api"),
            ("example.com", "/api/v2/"),
            ("*.example.com", "/"),
            ("*.deep.example.com", "/"),
            ("only.path.net", "/here"),
            ("*", "/"),
            ("*", "/static"),
            ("[::1]", "/"),
        ]);
        let rows = [
            ("example.com", "/", 0),
            ("EXAMPLE.com:8080", "/index", 0),
            ("example.com.", "/", 0),
            ("example.com", "/api", 1),
            ("example.com", "/api/", 1),
            ("example.com", "/api/users", 1),
            ("example.com", "/apis", 0),
            ("example.com", "/api/v2", 2),
            ("example.com", "/api/v2/x/y", 2),
            ("example.com", "/api/v22", 1),
            ("www.example.com", "/api", 3),
            ("a.deep.example.com", "/", 4),
            ("deep.example.com", "/", 3),
            ("only.path.net", "/here/x", 5),
            ("only.path.net", "/elsewhere", 6),
            ("unknown", "/static/a.css", 7),
            ("", "/", 6),
            ("[::1]:8080", "/", 8),
            (".example.com", "/", 6),
        ];
        for (host, path, index) in rows {
            assert_eq!(table.find(Some(host), path), Some(index), "{host} {path}");
        }
        assert_eq!(table.find(None, "/static"), Some(7));
    }

    #[test]
    fn nothing_matches_where_nothing_is_configured_for_it() {
        let table = table(&[("example.com", "/api")]);
        assert_eq!(table.find(Some("example.com"), "/"), None);
        assert_eq!(table.find(Some("other"), "/api"), None);
        assert_eq!(table.find(None, "/api"), None);
    }
}
