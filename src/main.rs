//! The program `fe-php`: see `fe_php::app`.

use std::process::ExitCode;

fn main() -> ExitCode {
    fe_php::app::main()
}
