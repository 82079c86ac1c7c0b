//! bitrix-node.

fn main() {}
