//! Reads three fields of a request and sets two, as `../policy` does; the server is chosen by Envoy itself.

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{Action, ContextType, LogLevel};

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Error);
    proxy_wasm::set_root_context(|_| Box::new(Root));
}}

struct Root;

impl Context for Root {}

impl RootContext for Root {
    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Edits))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

struct Edits;

impl Context for Edits {}

impl HttpContext for Edits {
    fn on_http_request_headers(&mut self, _: usize, _: bool) -> Action {
        let read = |name| self.get_http_request_header(name).unwrap_or_default();
        let (tenant, plan, agent) = (read("x-tenant"), read("x-plan"), read("user-agent"));
        let route = format!("{tenant}/{plan}");
        self.set_http_request_header("x-route", Some(&route));
        let client = if agent.contains("Mobile") { "mobile" } else { "desktop" };
        self.set_http_request_header("x-client", Some(client));
        Action::Continue
    }
}
