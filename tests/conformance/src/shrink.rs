//! The smallest input that still goes wrong.

use crate::play::{Spec, Step};
use crate::subject::Request;
use waypost_plugin::BackendState;

/// Tries of a smaller input, at most: what is found by then is small enough.
const TRIES: usize = 600;

/// A list is taken apart into no more parts than this at a time.
const PARTS: usize = 128;

/// Makes an input smaller as long as it stays wrong; returns it with what is wrong with it.
///
/// `smaller` names inputs that are smaller in one way each, the most promising first.
pub(crate) fn smallest<T: Clone>(
    mut input: T,
    mut wrong: String,
    smaller: impl Fn(&T) -> Vec<T>,
    mut check: impl FnMut(&T) -> Option<String>,
) -> (T, String) {
    let mut tries = 0;
    'smaller: loop {
        for candidate in smaller(&input) {
            tries += 1;
            if tries > TRIES {
                return (input, wrong);
            }
            if let Some(what) = check(&candidate) {
                (input, wrong) = (candidate, what);
                continue 'smaller;
            }
        }
        return (input, wrong);
    }
}

/// Scripts that are smaller in one way: without a stretch of steps, or with a simpler step.
#[expect(clippy::ptr_arg, reason = "what is shrunk is a `Vec`")]
pub(crate) fn script(script: &Vec<Step>) -> Vec<Vec<Step>> {
    let mut found = shorter(script);
    for (at, step) in script.iter().enumerate() {
        for simpler in simpler_step(step) {
            let mut smaller = script.clone();
            smaller[at] = simpler;
            found.push(smaller);
        }
    }
    found
}

/// Lists without a stretch of items: halves first, then quarters, down to single ones, or to parts of a long list.
pub(crate) fn shorter<T: Clone>(list: &[T]) -> Vec<Vec<T>> {
    let mut found = Vec::new();
    let mut length = list.len().div_ceil(2);
    // Copies of long lists take long to make, and most would never be looked at.
    let least = list.len().div_ceil(PARTS);
    while length > 0 {
        for start in (0..list.len()).step_by(length) {
            let end = (start + length).min(list.len());
            found.push([&list[..start], &list[end..]].concat());
        }
        length = match length.div_ceil(2) {
            half if half < length && half >= least => half,
            _ => 0,
        };
    }
    found
}

fn simpler_step(step: &Step) -> Vec<Step> {
    match step {
        Step::Set(specs) => fleets(specs).into_iter().map(Step::Set).collect(),
        Step::Load(name, load) if *load > 1 => {
            vec![Step::Load(*name, 1), Step::Load(*name, load / 2)]
        }
        Step::Advance(ms) if *ms > 1 => vec![Step::Advance(1), Step::Advance(ms / 2)],
        Step::Pick(shard, request) => {
            let mut found = Vec::new();
            if *shard > 0 {
                found.push(Step::Pick(0, request.clone()));
            }
            let requests = simpler_request(request).into_iter();
            found.extend(requests.map(|request| Step::Pick(*shard, request)));
            found
        }
        Step::End(which, status, latency) if (*status, *latency) != (200, 1) => {
            vec![Step::End(*which, 200, 1)]
        }
        Step::Swap(shard) if *shard > 0 => vec![Step::Swap(0)],
        _ => Vec::new(),
    }
}

fn simpler_request(request: &Request) -> Vec<Request> {
    let mut found = Vec::new();
    let mut plain = Request::get("/");
    plain.fields.clear();
    if *request != plain {
        found.push(plain);
    }
    let fields = shorter(&request.fields).into_iter().map(|fields| Request {
        fields,
        ..request.clone()
    });
    found.extend(fields);
    if request.target.len() > 1 {
        found.push(Request {
            target: "/".into(),
            ..request.clone()
        });
    }
    if request.method != "GET" {
        found.push(Request {
            method: "GET".into(),
            ..request.clone()
        });
    }
    for (at, (name, value)) in request.fields.iter().enumerate() {
        if value.len() > 1 {
            let mut smaller = request.clone();
            smaller.fields[at] = (name.clone(), value[..value.len() / 2].to_vec());
            found.push(smaller);
        }
    }
    found
}

/// Sets of backends that are smaller in one way.
pub(crate) fn fleets(specs: &[Spec]) -> Vec<Vec<Spec>> {
    let mut found = shorter(specs);
    for (at, spec) in specs.iter().enumerate() {
        let mut simpler = Vec::new();
        if spec.weight > 1 {
            simpler.extend([spec.weighing(1), spec.weighing(spec.weight.div_ceil(2))]);
        }
        if spec.state != BackendState::Up {
            simpler.push(spec.being(BackendState::Up));
        }
        for simpler in simpler.into_iter().filter(|simpler| simpler != spec) {
            let mut smaller = specs.to_vec();
            smaller[at] = simpler;
            found.push(smaller);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_matters_is_left() {
        let list: Vec<u32> = (0..100).collect();
        let bad =
            |list: &Vec<u32>| (list.contains(&17) && list.contains(&71)).then(|| "both".to_owned());
        let (small, what) = smallest(list, String::new(), |list| shorter(list), bad);
        assert_eq!((small, what.as_str()), (vec![17, 71], "both"));
    }

    #[test]
    fn an_end_comes_even_where_everything_is_wrong() {
        let script = vec![Step::Set(vec![Spec::up(3).weighing(9)]), Step::Swap(2)];
        let (small, _) = smallest(
            script,
            String::new(),
            super::script,
            |_| Some(String::new()),
        );
        assert_eq!(small, []);
    }
}
