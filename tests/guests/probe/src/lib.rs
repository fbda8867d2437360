//! Reports what the host tells it, in the request's field `x-report`: `key=value`, with spaces between them.
//!
//! The conformance suite compiles this file too, as native code, to put hosts to the test.

use waypost_plugin::{
    BackendId, Backends, Counter, Ending, Outcome, Pick, Policy, Request, export_policy, now,
    random,
};

/// Counts instances.
const INSTANCES: Counter = Counter::new(63);
/// Adds up what requests ask for in `x-add`.
const SUM: Counter = Counter::new(7);

/// The policy.
#[derive(Debug, Default)]
pub struct Probe {
    /// Its number, once it has been asked.
    instance: Option<i64>,
    /// Of the instance whose state it took over.
    restored: Option<String>,
    updates: u64,
    heard: Vec<String>,
}

impl Policy for Probe {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Probe::default())
    }

    fn update(&mut self, _: &Backends) {
        self.updates += 1;
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        let instance = *self.instance.get_or_insert_with(|| INSTANCES.add(1));
        let add = request.header("x-add").and_then(|text| text.parse().ok());
        let each = |list: &mut dyn Iterator<Item = String>| list.collect::<Vec<_>>().join(",");
        let report = [
            format!("instance={instance}"),
            format!("restored={}", self.restored.as_deref().unwrap_or("")),
            format!("updates={}", self.updates),
            format!("attempt={}", request.attempt()),
            format!("ticket={}", request.ticket()),
            format!(
                "tried={}",
                each(&mut request.tried().iter().map(BackendId::to_string))
            ),
            format!("method={}", request.method()),
            format!("scheme={}", request.scheme()),
            format!("authority={}", request.authority()),
            format!("target={}", request.target()),
            format!("client={}", request.client_address()),
            format!("field={}", request.header("x-field").unwrap_or_default()),
            format!("fields={}", request.headers().len()),
            format!(
                "backends={}",
                each(
                    &mut backends
                        .iter()
                        .map(|b| { format!("{}:{}:{}:{:?}", b.id, b.name, b.weight, b.state) })
                )
            ),
            format!(
                "loads={}",
                each(&mut backends.in_flight().iter().map(u32::to_string))
            ),
            format!(
                "each-load={}",
                each(
                    &mut backends
                        .iter()
                        .map(|b| backends.in_flight_of(b.id).to_string())
                )
            ),
            format!(
                "latency={}",
                each(&mut backends.latency_us().iter().map(u32::to_string))
            ),
            format!(
                "errors={}",
                each(&mut backends.error_ppm().iter().map(u32::to_string))
            ),
            format!("now={}", now().as_nanos()),
            format!("random={}", random()),
            format!("sum={}", SUM.add(add.unwrap_or(0))),
            format!("heard={}", std::mem::take(&mut self.heard).join(",")),
        ];
        request.set_header("x-report", report.join(" "));
        if let Some(value) = request.header("x-once") {
            request.set_header("x-twice", value);
        }
        let wanted = request.header("x-pick").and_then(|text| text.parse().ok());
        match wanted
            .map(BackendId::new)
            .or(backends.healthy().next().map(|b| b.id))
        {
            Some(id) => Pick::forward(id),
            None => Pick::unavailable(),
        }
    }

    fn observe(&mut self, outcomes: &[Outcome]) {
        for outcome in outcomes {
            let ending = match outcome.ending {
                Ending::Status(status) => status.to_string(),
                Ending::Failed(failure) => format!("{failure:?}"),
            };
            let Outcome {
                backend,
                attempt,
                latency_us,
                bytes,
                ..
            } = outcome;
            self.heard
                .push(format!("{backend}:{attempt}:{ending}:{latency_us}:{bytes}"));
        }
    }

    fn save(&self) -> Vec<u8> {
        format!("probe {}", self.instance.unwrap_or(-1)).into()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let text = String::from_utf8_lossy(state);
        let instance = text.strip_prefix("probe ").ok_or("not a probe's")?;
        self.restored = Some(instance.to_owned());
        Ok(())
    }
}

export_policy!(Probe, outcomes, state);
