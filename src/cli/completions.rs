//! `gateway completions`.

use clap::CommandFactory;
use clap_complete::{Shell, generate};

use super::{Cli, output};

/// Print a script that completes this program's commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: source <(gateway completions bash)")]
pub struct Args {
    /// The shell that is to run it
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "gateway", &mut script);
    Ok(output::line(String::from_utf8(script)?.trim_end())?)
}
