#[cfg_attr(not(test), expect(dead_code, reason = "the executor calls the nodes"))]
mod node;

fn main() {}
