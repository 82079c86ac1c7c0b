//! bitrix-node: parses the command line, carries it out, returns its exit code.

/// A request is many small allocations, and who frees them is often another thread.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    bitrix_node::cli::main()
}
