//! Has a name that clears a terminal and writes a line of its own into a log, which no `Cargo.toml` allows. What
//! `export_policy!` writes for others is written by hand here.

use waypost_plugin::{__private as sdk, Backends, Pick, Policy, Request};

struct LiesAboutItself;

impl Policy for LiesAboutItself {
    type Config = ();

    fn configure(_: ()) -> Result<Self, String> {
        Ok(LiesAboutItself)
    }

    fn pick(&mut self, _: &Request, backends: &Backends) -> Pick {
        match backends.healthy().next() {
            Some(backend) => Pick::forward(backend.id),
            None => Pick::unavailable(),
        }
    }
}

struct Exported;

impl sdk::Export for Exported {
    type Policy = LiesAboutItself;
    const NAME: &'static str = "\u{1b}[2J\nERROR all is lost\n";
    const VERSION: &'static str = "\u{1b}[1A1.0.0\u{7}";

    fn instance() -> &'static std::thread::LocalKey<sdk::Instance<LiesAboutItself>> {
        std::thread_local! {
            static INSTANCE: sdk::Instance<LiesAboutItself> = const { sdk::Instance::new() };
        }
        &INSTANCE
    }
}

sdk::export_hook!(balance, Exported);
