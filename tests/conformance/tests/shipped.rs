use waypost_conformance::{Options, native::Native, run};

#[test]
fn shipped() {
    let options = Options::default();
    let report = run(
        &Native::<round_robin::RoundRobin>::new("round-robin", "1"),
        &options,
    );
    println!("{}", report.table("x"));
    let report = run(
        &Native::<least_conn::LeastConn>::new("least-conn", "1"),
        &options,
    );
    println!("{}", report.table("x"));
    assert!(report.is_good());
}
