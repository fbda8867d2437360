fn main() {
    for name in ["rotation", "round-robin", "least-conn"] {
        let p = waypost::config::Policy::built_in(name).unwrap();
        for c in waypost::bench::picks(&p, &[2, 10, 100, 1000, 10000]).unwrap() {
            println!("{name} {c:?}");
        }
    }
}
