//! `plimsoll`, the command. What it does is in the library.

fn main() -> std::process::ExitCode {
    plimsoll_client::main()
}
