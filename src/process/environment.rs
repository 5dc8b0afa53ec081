//! The environment, as both programs read it. An empty or blank variable counts as unset, blanks
//! around a value are cut off, and an error names the variable. A secret may be in a file, whose
//! path is in a variable that ends with `_FILE`. It must not be an argument, which every user of
//! the machine can read. The mock provider compiles this file too.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStringExt;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};
use reqwest::Url;

/// The largest file for a secret, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What is wrong with a variable. Its value is not repeated: it may be a secret.
#[derive(Debug, thiserror::Error)]
pub enum Invalid {
    /// It is not Unicode.
    #[error("{0} is not Unicode")]
    NotUnicode(&'static str),
    /// A list without items: whoever set it did not mean to leave it out.
    #[error("{0} is set, but has nothing in it")]
    Nothing(&'static str),
    /// Shells take quotes away, env files often do not.
    #[error("{0} has quotes around a value, which would be a part of it: leave them out")]
    Quoted(&'static str),
    /// It would not be clear which one counts.
    #[error("{0} and {0}_FILE are both set: set one of them")]
    Both(String),
    /// The file cannot be read.
    #[error("{variable}_FILE: {path} cannot be read: {error}")]
    File {
        /// The variable that the file stands in for.
        variable: String,
        /// The file.
        path: String,
        /// The reason.
        error: io::Error,
    },
    /// The file is empty, or too large for a secret.
    #[error("{variable}_FILE: {path} {what}")]
    Content {
        /// The variable that the file stands in for.
        variable: String,
        /// The file.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The value of a variable that has no option.
pub fn variable(name: &'static str) -> Result<Option<String>, Invalid> {
    let value = value(OsStr::new(name)).map(OsString::into_string);
    value.transpose().map_err(|_| Invalid::NotUnicode(name))
}

/// Whether a secret is set, by its variable or by a file.
#[must_use]
pub fn is_set(name: &str) -> bool {
    value(OsStr::new(name)).is_some() || value(&file_variable(name.as_ref())).is_some()
}

/// The comma-separated secrets of a variable, or of the file that stands in for it; empty if
/// neither is set.
pub fn secrets(name: &'static str) -> Result<Vec<String>, Invalid> {
    let Some(value) = secret(OsStr::new(name))? else {
        return Ok(Vec::new());
    };
    let value = value.into_string().map_err(|_| Invalid::NotUnicode(name))?;
    let items: Vec<String> = items(&value).map(str::to_owned).collect();
    if items.is_empty() {
        return Err(Invalid::Nothing(name));
    }
    if is_quoted(&value) || items.iter().any(|item| is_quoted(item)) {
        return Err(Invalid::Quoted(name));
    }
    Ok(items)
}

/// The items of a comma-separated list, without blanks around them.
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

/// The value of a variable that may hold a secret, or of the file that stands in for it.
fn secret(name: &OsStr) -> Result<Option<OsString>, Invalid> {
    let variable = || name.to_string_lossy().into_owned();
    match (value(name), value(&file_variable(name))) {
        (Some(_), Some(_)) => Err(Invalid::Both(variable())),
        (value, None) => Ok(value),
        (None, Some(file)) => {
            let path = file.to_string_lossy().into_owned();
            let content = content(&file).map_err(|error| Invalid::File {
                variable: variable(),
                path: path.clone(),
                error,
            })?;
            let is_too_large = content.len() as u64 > MAX_FILE;
            let content = content.trim_ascii();
            if is_too_large || content.is_empty() {
                return Err(Invalid::Content {
                    variable: variable(),
                    path,
                    what: if is_too_large {
                        "has more than 64 KiB"
                    } else {
                        "has nothing in it"
                    },
                });
            }
            Ok(Some(OsString::from_vec(content.to_vec())))
        }
    }
}

fn file_variable(name: &OsStr) -> OsString {
    let mut variable = name.to_owned();
    variable.push("_FILE");
    variable
}

fn content(path: &OsStr) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(MAX_FILE + 1)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Whether an option may hold a secret: if help hides its value, and for every URL, which may have
/// a password.
fn is_secret(option: &Arg) -> bool {
    let is_url = |variable: &OsStr| variable.as_encoded_bytes().ends_with(b"_URL");
    option.is_hide_env_values_set() || option.get_env().is_some_and(is_url)
}

/// Whether a URL has a password in it, or something like one.
fn tells_secret(url: &str) -> bool {
    let Ok(parsed) = Url::parse(url) else {
        return url.contains('@');
    };
    let is_web = matches!(parsed.scheme(), "http" | "https");
    let is_one = |name: &str| {
        let ends = |end| name.to_ascii_lowercase().ends_with(end);
        ["password", "token", "secret"].into_iter().any(ends) || is_web && ends("key")
    };
    parsed.password().is_some()
        // Some services take a token there.
        || is_web && !parsed.username().is_empty()
        || parsed.cannot_be_a_base() && url.contains('@')
        || parsed.query_pairs().any(|(name, _)| is_one(&name))
}

/// Reads these arguments, and the environment for options that they leave out.
///
/// Clap alone would take an empty variable for a value, and would name the option when the variable
/// is wrong. So clap knows the variables only to list them in its help, and their values are passed
/// to it as arguments.
pub fn matches(
    command: &Command,
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<ArgMatches, clap::Error> {
    let command = &with_files(command.clone());
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut completed = arguments.clone();
    let mut read = Vec::new();
    let mut invalid = None;
    let chosen = arguments.iter().enumerate().find_map(|(place, argument)| {
        let subcommand = command.find_subcommand(argument)?;
        Some((place, subcommand))
    });
    let first = usize::from(!command.is_no_binary_name_set()).min(arguments.len());
    let places = chosen.map(|(place, subcommand)| (subcommand, place + 1));
    for (command, place) in places.into_iter().chain([(command, first)]) {
        match insert(command, &arguments, &mut completed, place) {
            Ok(inserted) => read.extend(inserted),
            Err(error) => invalid = Some(error),
        }
    }
    let matches = without_variables(command.clone()).try_get_matches_from(completed);
    match (matches, invalid) {
        (Err(error), _) if error.kind() == ErrorKind::DisplayHelp => {
            let help = command.clone().try_get_matches_from(arguments);
            Err(help.err().unwrap_or(error))
        }
        (Err(error), _) if error.kind() == ErrorKind::DisplayVersion => Err(error),
        (_, Some(invalid)) => Err(refusal(command, &invalid.to_string())),
        (Err(error), None) => Err(naming_variable(error, command, &read)),
        (Ok(matches), None) => match told(command, &matches, &read) {
            Some(told) => Err(refusal(command, &told)),
            None => Ok(matches),
        },
    }
}

fn refusal(command: &Command, message: &str) -> clap::Error {
    command.clone().error(ErrorKind::ValueValidation, message)
}

/// Why an argument with a secret in it is refused.
fn told(command: &Command, matches: &ArgMatches, read: &[Read]) -> Option<String> {
    let of_subcommand = matches
        .subcommand()
        .and_then(|(name, matches)| told(command.find_subcommand(name)?, matches, read));
    let tells = |option: &&Arg| {
        let id = option.get_id().as_str();
        let is_argument = matches.try_contains_id(id).is_ok_and(|is_there| is_there)
            && matches.value_source(id) == Some(ValueSource::CommandLine);
        let is_read = option.get_long().is_some_and(|long| {
            let option = format!("--{long}");
            read.iter().any(|read| read.option == option)
        });
        let mut values = matches.get_raw(id).filter(|_| is_argument && !is_read);
        is_secret(option)
            && values
                .as_mut()
                .is_some_and(|values| values.any(|value| tells_secret(&value.to_string_lossy())))
    };
    of_subcommand.or_else(|| {
        let option = command.get_arguments().find(tells)?;
        let (long, variable) = (option.get_long()?, option.get_env()?.to_string_lossy());
        Some(format!(
            "--{long} has a password in it, which every user of this machine could read: set {variable}, or {variable}_FILE to a file that has it"
        ))
    })
}

/// Adds to the help which variables may name a file instead.
fn with_files(command: Command) -> Command {
    let with = |option: Arg| match (option.get_env(), option.get_help()) {
        (Some(variable), Some(help)) if is_secret(&option) => {
            let told = value(variable).is_some_and(|it| tells_secret(&it.to_string_lossy()));
            let hide = option.is_hide_env_values_set() || told;
            let variable = variable.to_string_lossy();
            let help = format!("{help}; {variable}_FILE: a file that has it");
            option.help(help).hide_env_values(hide)
        }
        _ => option,
    };
    command.mut_args(with).mut_subcommands(with_files)
}

/// An option that a variable has set.
struct Read {
    option: String,
    variable: String,
    is_unicode: bool,
}

/// Adds the values of a command's variables to the arguments, at this place, except for options
/// that are there already.
fn insert(
    command: &Command,
    arguments: &[OsString],
    completed: &mut Vec<OsString>,
    place: usize,
) -> Result<Vec<Read>, Invalid> {
    let mut read = Vec::new();
    for option in command.get_arguments() {
        let (Some(long), Some(variable)) = (option.get_long(), option.get_env()) else {
            continue;
        };
        if is_given(long, arguments) {
            continue;
        }
        let value = if is_secret(option) {
            secret(variable)?
        } else {
            value(variable)
        };
        let Some(value) = value else {
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
    Ok(read)
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
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else {
        return error;
    };
    let option = option.split([' ', '=', '[']).next().unwrap_or_default();
    let option = option.to_owned();
    if is_secret_somewhere(command, &option) {
        error.insert(ContextKind::InvalidValue, ContextValue::String("…".into()));
    }
    if let Some(read) = read.iter().find(|read| read.option == option) {
        let variable = ContextValue::String(read.variable.clone());
        error.insert(ContextKind::InvalidArg, variable);
    }
    error
}

fn is_secret_somewhere(command: &Command, option: &str) -> bool {
    let is_it = |arg: &Arg| is_secret(arg) && arg.get_long() == option.strip_prefix("--");
    command.get_arguments().any(is_it)
        || command
            .get_subcommands()
            .any(|command| is_secret_somewhere(command, option))
}
