fn main() -> std::process::ExitCode {
    rswsgi::supervisor::main()
}
