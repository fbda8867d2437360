//! Write load-balancing policies for Waypost.
//!
//! A policy decides where a request goes. It is a struct that implements [`Policy`], and one line of
//! [`export_policy!`] that turns the crate into a plugin. Waypost runs it as WebAssembly, in a sandbox, and can
//! replace it without losing a request; writing one takes no knowledge of either.
//!
//! `waypost plugin new NAME` writes a crate to begin with, and the [`guide`] goes on from there, task by task.
//!
//! # A complete policy
//!
//! Requests that carry a given cookie stay with the backend that the cookie names; all others go to the backend
//! with the fewest requests under way, and the answer sets the cookie.
//!
//! ```
//! use serde::Deserialize;
//! use waypost_plugin::{Backends, Pick, Policy, Request, export_policy};
//!
//! #[derive(Deserialize)]
//! struct Settings {
//!     cookie: String,
//! }
//!
//! struct Sticky {
//!     cookie: String,
//! }
//!
//! impl Policy for Sticky {
//!     type Config = Settings;
//!
//!     fn configure(config: Settings) -> Result<Self, String> {
//!         if config.cookie.is_empty() {
//!             return Err("cookie must not be empty".into());
//!         }
//!         Ok(Sticky { cookie: config.cookie })
//!     }
//!
//!     fn pick(&mut self, request: &Request, backends: &Backends) -> Pick {
//!         let wanted = request.cookie(&self.cookie);
//!         if let Some(backend) = backends.healthy().find(|b| Some(&b.name) == wanted.as_ref()) {
//!             return Pick::forward(backend.id);
//!         }
//!         match backends.healthy().min_by_key(|b| backends.in_flight_of(b.id)) {
//!             Some(backend) => {
//!                 let cookie = format!("{}={}; Path=/", self.cookie, backend.name);
//!                 request.response().append_header("set-cookie", cookie);
//!                 Pick::forward(backend.id)
//!             }
//!             None => Pick::unavailable(),
//!         }
//!     }
//! }
//!
//! export_policy!(Sticky);
//!
//! // In the crate's tests: a simulated host, no WebAssembly toolchain.
//! use waypost_plugin::testing::{Harness, TestRequest, backend};
//!
//! let mut harness = Harness::<Sticky>::new(r#"{ "cookie": "sid" }"#);
//! harness.set_backends([backend("a"), backend("b")]);
//! harness.set_in_flight("a", 3);
//!
//! let picked = harness.pick(&TestRequest::get("/"));
//! assert_eq!(picked.backend(), Some("b"));
//! assert_eq!(picked.response_header("set-cookie").as_deref(), Some("sid=b; Path=/"));
//!
//! let picked = harness.pick(&TestRequest::get("/").header("cookie", "sid=a"));
//! assert_eq!(picked.backend(), Some("a"));
//! ```
//!
//! # The crate around it
//!
//! As `waypost plugin new` writes it:
//!
//! ```toml
//! [package]
//! name = "sticky"        # the name the host shows
//! version = "0.1.0"      # the version the host shows
//! edition = "2024"
//!
//! [lib]
//! crate-type = ["cdylib", "rlib"]   # cdylib is the plugin, rlib is for `cargo test`
//!
//! [dependencies]
//! serde = { version = "1", features = ["derive"] }
//! waypost-plugin = { path = "../waypost/plugin-sdk" }   # where the repository is
//! ```
//!
//! # Rules of the house
//!
//! A policy is a pure function of what the host hands it. It has no files, no sockets and no clock of its own:
//! [`now`] and [`random`] come from the host, so that a recorded run can be replayed exactly. One instance serves one
//! upstream on one shard (one thread of the proxy); instances share nothing but [`Counter`]s. A policy that panics
//! or takes too long loses that call, not the request: the host falls back to plain rotation.

#![deny(missing_docs)]

pub mod guide;

mod backends;
mod choice;
mod hooks;
mod host;
mod key;
mod outcome;
mod policy;
mod request;
mod runner;

#[cfg(target_arch = "wasm32")]
mod bindings;
#[cfg(target_arch = "wasm32")]
mod guest;
#[cfg(target_arch = "wasm32")]
use guest as abi;

#[cfg(not(target_arch = "wasm32"))]
mod simulated;
#[cfg(not(target_arch = "wasm32"))]
use simulated as abi;
#[cfg(not(target_arch = "wasm32"))]
pub mod simulation;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub use backends::{Backend, BackendId, BackendState, Backends};
pub use choice::LeastLoaded;
pub use host::{COUNTER_SLOTS, Counter, log, now, random, random_below};
pub use key::{FieldName, Key, stable_hash};
pub use outcome::{Ending, Failure, Outcome};
pub use policy::{Config, Pick, Policy, Promise};
pub use request::{Request, Response};

/// Makes the crate a plugin whose policy is the given type, which must implement [`Policy`].
///
/// The optional hooks a policy implements are listed after it, in any order: `outcomes` for
/// [`Policy::observe`], `responses` for [`Policy::respond`], `state` for [`Policy::save`] and [`Policy::restore`].
/// **A hook that is not listed is not called**, whatever the type implements, and costs nothing per request. In the
/// crate's own `cargo test` the macro adds a test, `export_policy_lists_every_hook`, which fails where the type
/// implements a hook that is not listed (a type that refuses an empty `config` is not looked at).
///
/// ```
/// # use waypost_plugin::{Backends, Pick, Policy, Request};
/// # struct FirstHealthy;
/// # impl Policy for FirstHealthy {
/// #     type Config = ();
/// #     fn configure(_: ()) -> Result<Self, String> { Ok(FirstHealthy) }
/// #     fn pick(&mut self, _: &Request, _: &Backends) -> Pick { Pick::unavailable() }
/// # }
/// waypost_plugin::export_policy!(FirstHealthy, outcomes, state);
/// ```
///
/// The plugin's name and version are those of the crate's `Cargo.toml`. Use the macro once per crate. Anywhere but on
/// WebAssembly it only checks that the type is a policy, and that test.
#[macro_export]
macro_rules! export_policy {
    ($policy:ty $(, $hook:ident)* $(,)?) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::__private::Export for Exported {
                type Policy = $policy;
                const NAME: &'static str = env!("CARGO_PKG_NAME");
                const VERSION: &'static str = env!("CARGO_PKG_VERSION");

                fn instance() -> &'static ::std::thread::LocalKey<$crate::__private::Instance<$policy>> {
                    ::std::thread_local! {
                        static INSTANCE: $crate::__private::Instance<$policy> =
                            const { $crate::__private::Instance::new() };
                    }
                    &INSTANCE
                }
            }

            $crate::__private::export_hook!(balance, Exported);
            $($crate::__private::export_hook!($hook, Exported);)*
        };

        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            const fn is_a_policy<P: $crate::Policy>() {}
            is_a_policy::<$policy>();
            $($crate::__private::export_hook!($hook);)*
        };

        #[cfg(all(test, not(target_arch = "wasm32")))]
        #[test]
        fn export_policy_lists_every_hook() {
            let listed = [$(::std::stringify!($hook)),*];
            if let ::std::option::Option::Some(unlisted) = $crate::__private::unlisted::<$policy>(&listed) {
                ::std::panic!("{unlisted}");
            }
        }
    };
}

/// What the expansion of [`export_policy!`] names; not for anybody else.
#[doc(hidden)]
pub mod __private {
    #[cfg(target_arch = "wasm32")]
    pub use crate::{
        bindings::{outcomes, policy, responses, state},
        guest::{Export, Instance},
    };

    #[cfg(not(target_arch = "wasm32"))]
    pub use crate::hooks::unlisted;

    pub use crate::__export_hook as export_hook;
}

#[doc(hidden)]
#[macro_export]
macro_rules! __export_hook {
    (balance, $exported:ident) => {
        $crate::__private::policy::export!($exported with_types_in $crate::__private::policy);
    };
    (outcomes, $exported:ident) => {
        $crate::__private::outcomes::export!($exported with_types_in $crate::__private::outcomes);
    };
    (responses, $exported:ident) => {
        $crate::__private::responses::export!($exported with_types_in $crate::__private::responses);
    };
    (state, $exported:ident) => {
        $crate::__private::state::export!($exported with_types_in $crate::__private::state);
    };
    (outcomes) => {};
    (responses) => {};
    (state) => {};
    ($other:ident $($rest:tt)*) => {
        ::std::compile_error!(::std::concat!(
            "unknown hook `", ::std::stringify!($other), "`: the hooks are `outcomes`, `responses` and `state`"
        ));
    };
}
