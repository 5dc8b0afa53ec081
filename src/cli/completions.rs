//! `gateway completions`.

use clap::Command;
use clap_complete::{Shell, generate};

use super::output;

/// Print a script that completes this program's commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: source <(gateway completions bash)")]
pub struct Args {
    /// The shell to write the script for
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "gateway", &mut script);
    Ok(output::line(String::from_utf8(script)?.trim_end())?)
}
