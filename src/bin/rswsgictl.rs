fn main() -> std::process::ExitCode {
    rswsgi::ctl::main()
}
