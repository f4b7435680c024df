//! `cargo bench -p bulla-benches --bench registry`

use bulla_benches::registry;

fn main() {
    registry::serve_if_asked();
    registry::compare();
}
