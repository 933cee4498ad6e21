//! The program `coracle`: arguments in, exit status out.

fn main() {
    std::process::exit(coracle::cli::run(std::env::args_os()).into());
}
