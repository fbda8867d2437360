//! Holds policies to the contract, and to what they promise.
//!
//! No other tool tests what a load-balancing policy *does*. This one runs it in a simulated host that the suite controls
//! (backends, requests under way, latencies, the clock, random numbers, what was tried before) and looks at every pick.
//!
//! # Run it
//!
//! On what is shipped, in the real host's loader and instances:
//!
//! ```sh
//! waypost plugin test my-policy.wasm            # a table; exit status 0 where nothing speaks against it, else 1
//! waypost plugin test my-policy.wasm --config '{"cookie":"sid"}' --seeds 10 --junit report.xml
//! waypost plugin test my-policy.wasm --case law/never-picks-down --seed 7      # one counterexample again
//! waypost plugin test my-policy.wasm --header 'x-tenant: acme' --label tier=gold    # what means something to it
//! waypost plugin test my-policy.wasm --certificate my-policy.json              # for `require_certificate`
//! waypost plugin test --list                    # all cases
//! ```
//!
//! In the policy's own tests, natively, with one line (see [`conforms!`]).
//!
//! # What it says
//!
//! Every policy is held to the *law* of the contract; beside that, each is held to what it
//! [promises](waypost_plugin::Policy::PROMISES). A verdict is `ok`, `FAILED` with the smallest input found that shows it
//! and the command that shows it again, `-` where the case is not about such policies, or `unclear`. The same
//! seed does the same again, anywhere.
//!
//! # Add a case
//!
//! A case is a row in the `CASES` of the module of its family: an id that never changes, a sentence, a function of a
//! trial. The function makes up an input from the trial's random numbers, hands it with a check to `Trial::falsify`
//! (or a script of [steps](play::Step) with a rule to `Trial::follow`), which makes what fails as small as it gets.
//! Then write a wrong policy that the case must notice, in `tests/mutants`, and raise [`SUITE`].

#![deny(missing_docs)]

mod balanced;
mod case;
pub mod certificate;
mod consistent;
pub mod host;
mod key;
mod law;
mod least_loaded;
mod limits;
pub mod native;
pub mod play;
pub mod random;
pub mod report;
mod rewrites;
mod shrink;
mod state;
mod sticky;
pub mod subject;
pub mod traffic;

pub use case::{CONTRACT, Case, Options, SUITE, cases, run};
pub use law::parity;

/// Tests of a policy's own crate: the suite on the policy's type, as native code, one test for each family of cases.
///
/// ```
/// # use waypost_plugin::{Backends, Pick, Policy, Request};
/// # struct MyPolicy;
/// # impl Policy for MyPolicy {
/// #     type Config = ();
/// #     fn configure(_: ()) -> Result<Self, String> { Ok(MyPolicy) }
/// #     fn pick(&mut self, _: &Request, _: &Backends) -> Pick { Pick::unavailable() }
/// # }
/// waypost_conformance::conforms!(MyPolicy);
/// ```
///
/// A policy that wants settings gets them as JSON: `conforms!(MyPolicy, r#"{"cookie":"sid"}"#)`. Header fields and labels
/// that mean something to it go along, for nobody could guess them, and what hangs on them would not be tested:
///
/// ```
/// # use waypost_plugin::{Backends, Pick, Policy, Request};
/// # struct MyPolicy;
/// # impl Policy for MyPolicy {
/// #     type Config = ();
/// #     fn configure(_: ()) -> Result<Self, String> { Ok(MyPolicy) }
/// #     fn pick(&mut self, _: &Request, _: &Backends) -> Pick { Pick::unavailable() }
/// # }
/// use waypost_conformance::{Options, conforms};
///
/// conforms!(MyPolicy, Options::from("{}").header("x-tenant", "acme").label("tier", "gold"));
/// ```
///
/// Use it once in a module. The families that the policy does not promise pass without a look at it. Memory, fuel and
/// the deadline, and whether the policy runs in the sandbox at all, can only be told of what is built: `waypost plugin
/// test` looks at them.
#[macro_export]
macro_rules! conforms {
    ($policy:ty) => {
        $crate::conforms!($policy, "{}");
    };
    ($policy:ty, $options:expr) => {
        #[cfg(test)]
        mod conformance {
            use super::*;

            fn family(family: &str) {
                let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
                let subject = $crate::native::Native::<$policy>::new(name, version);
                $crate::assert_conforms(&subject, $options, family);
            }

            #[test]
            fn law() {
                family("law");
            }

            #[test]
            fn balanced() {
                family("balanced");
            }

            #[test]
            fn least_loaded() {
                family("least-loaded");
            }

            #[test]
            fn sticky() {
                family("sticky");
            }

            #[test]
            fn consistent() {
                family("consistent");
            }

            #[test]
            fn rewrites_headers() {
                family("rewrites-headers");
            }
        }
    };
}

/// Runs a family of cases, if they apply; what [`conforms!`] is made of.
///
/// # Panics
/// With the whole report where something speaks against the policy.
pub fn assert_conforms(subject: &dyn subject::Subject, options: impl Into<Options>, family: &str) {
    let options = Options {
        only: Some(family.into()),
        ..options.into()
    };
    let report = run(subject, &options);
    let command = "waypost plugin test FILE";
    assert!(report.is_good(), "\n{}", report.table(command));
}
