//! Counts its picks, hands the count to its successor, and tells every request the count and its own version. Responses
//! are told the version too, of whichever instance sees them.

use waypost_plugin::{BackendId, Backends, Pick, Policy, Request, Response, export_policy};

const VERSION: &str = env!("CARGO_PKG_VERSION");

#[derive(Default)]
struct Counts {
    count: u64,
}

impl Policy for Counts {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(Counts::default())
    }

    fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
        self.count += 1;
        request.set_header("x-count", self.count.to_string());
        request.set_header("x-version", VERSION);
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }

    fn respond(&mut self, _: BackendId, response: &Response) {
        response.set_header("x-seen-by", VERSION);
    }

    fn save(&self) -> Vec<u8> {
        self.count.to_string().into_bytes()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), String> {
        let count = std::str::from_utf8(state)
            .ok()
            .and_then(|text| text.parse().ok());
        self.count = count.ok_or("this is no count")?;
        Ok(())
    }
}

export_policy!(Counts, responses, state);
