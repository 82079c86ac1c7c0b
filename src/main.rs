//! bitrix-node: parses the command line, carries it out, returns its exit code.

fn main() -> std::process::ExitCode {
    bitrix_node::cli::main()
}
