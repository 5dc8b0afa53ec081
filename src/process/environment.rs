//! The environment as both programs read it: a variable that is empty or blank is an unset one, blanks around a value are cut off, and an
//! error names the variable. The mock provider compiles this file too.

use std::ffi::{OsStr, OsString};

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgMatches, Command};

/// What is wrong with the value of a variable, which is not repeated: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is not Unicode.
    #[error("{0} is not Unicode")]
    NotUnicode(&'static str),
    /// A list of nothing: whoever set it did not mean to leave it out.
    #[error("{0} is set, but has nothing in it")]
    Nothing(&'static str),
    /// Shells take quotes away, env files often do not.
    #[error("{0} has quotes around a value, which would be a part of it: leave them out")]
    Quoted(&'static str),
}

/// The value of a variable that is no option.
pub fn variable(name: &'static str) -> Result<Option<String>, Invalid> {
    let value = value(OsStr::new(name)).map(OsString::into_string);
    value.transpose().map_err(|_| Invalid::NotUnicode(name))
}

/// The comma-separated secrets of a variable; none where it is not set.
pub fn secrets(name: &'static str) -> Result<Vec<String>, Invalid> {
    let Some(value) = variable(name)? else {
        return Ok(Vec::new());
    };
    let items: Vec<String> = items(&value).map(str::to_owned).collect();
    if items.is_empty() {
        return Err(Invalid::Nothing(name));
    }
    if is_quoted(&value) || items.iter().any(|item| is_quoted(item)) {
        return Err(Invalid::Quoted(name));
    }
    Ok(items)
}

/// What is between the commas, without the blanks around it.
pub fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
}

fn is_quoted(value: &str) -> bool {
    let is_quoted_by = |quote| value.starts_with(quote) && value.ends_with(quote);
    ['"', '\''].into_iter().any(is_quoted_by)
}

fn value(name: &OsStr) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    let value = match value.to_str() {
        Some(text) => text.trim().into(),
        None => value,
    };
    (!value.is_empty()).then_some(value)
}

/// Reads these arguments; what they do not say of a command's options is said by the variables of these.
///
/// Clap by itself takes an empty variable for a value, and names the option where the variable is wrong. So it is only told of variables
/// to list them in its help, and reads what they say as arguments.
pub fn matches(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, clap::Error> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut completed = arguments.clone();
    let mut read = Vec::new();
    let chosen = arguments.iter().enumerate().find_map(|(place, argument)| {
        let subcommand = command.find_subcommand(argument)?;
        Some((place, subcommand))
    });
    if let Some((place, subcommand)) = chosen {
        read.extend(insert(subcommand, &arguments, &mut completed, place + 1));
    }
    let first = usize::from(!command.is_no_binary_name_set()).min(arguments.len());
    read.extend(insert(command, &arguments, &mut completed, first));
    without_variables(command.clone())
        .try_get_matches_from(completed)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp => command
                .clone()
                .try_get_matches_from(arguments)
                .err()
                .unwrap_or(error),
            _ => naming_variable(error, command, &read),
        })
}

/// An option that a variable has set.
struct Read {
    option: String,
    variable: String,
    is_unicode: bool,
}

/// Puts what the variables of this command say into the arguments at this place, but for options that are there already.
fn insert(
    command: &Command,
    arguments: &[OsString],
    completed: &mut Vec<OsString>,
    place: usize,
) -> Vec<Read> {
    let mut read = Vec::new();
    for option in command.get_arguments() {
        let (Some(long), Some(variable)) = (option.get_long(), option.get_env()) else {
            continue;
        };
        let Some(value) = value(variable).filter(|_| !is_given(long, arguments)) else {
            continue;
        };
        let mut argument = OsString::from(format!("--{long}="));
        argument.push(&value);
        completed.insert(place, argument);
        read.push(Read {
            option: format!("--{long}"),
            variable: variable.to_string_lossy().into_owned(),
            is_unicode: value.to_str().is_some(),
        });
    }
    read
}

fn is_given(long: &str, arguments: &[OsString]) -> bool {
    let is_it = |argument: &OsString| {
        let argument = argument.to_str().and_then(|text| text.strip_prefix("--"));
        argument.is_some_and(|text| text.split('=').next() == Some(long))
    };
    arguments.iter().any(is_it)
}

fn without_variables(command: Command) -> Command {
    let without = |option: Arg| option.env(Resettable::Reset);
    command.mut_args(without).mut_subcommands(without_variables)
}

fn naming_variable(mut error: clap::Error, command: &Command, read: &[Read]) -> clap::Error {
    if error.kind() == ErrorKind::InvalidUtf8
        && let Some(read) = read.iter().find(|read| !read.is_unicode)
    {
        let message = format!("{} is not Unicode", read.variable);
        return command.clone().error(ErrorKind::InvalidUtf8, message);
    }
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg)
        && let option = option.split([' ', '=', '[']).next().unwrap_or_default()
        && let Some(read) = read.iter().find(|read| read.option == option)
    {
        let variable = ContextValue::String(read.variable.clone());
        error.insert(ContextKind::InvalidArg, variable);
    }
    error
}
