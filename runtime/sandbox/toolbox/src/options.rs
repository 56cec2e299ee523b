//! Options as POSIX' `getopt` reads them, with long ones.

use crate::failure::Failure;

/// What was found among the arguments.
#[derive(Default)]
pub struct Options {
    set: Vec<(char, String)>,
    /// Everything that is no option.
    pub operands: Vec<String>,
}

impl Options {
    /// Reads `args`. `spec` lists letters; a colon behind a letter says that it takes a value. `long` gives letters to
    /// long options. Options and operands may be mixed; `--` ends the options.
    pub fn read(args: &[String], spec: &str, long: &[(&str, char)]) -> Result<Self, Failure> {
        let mut found = Self::default();
        let mut args = args.iter();
        while let Some(arg) = args.next() {
            if arg == "--" {
                found.operands.extend(args.by_ref().cloned());
            } else if let Some(name) = arg.strip_prefix("--") {
                let (name, value) = match name.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (name, None),
                };
                let letter = long
                    .iter()
                    .find(|(long, _)| *long == name)
                    .map(|(_, letter)| *letter);
                let letter = letter.ok_or_else(|| unknown(arg))?;
                let value = match (takes_value(spec, letter), value) {
                    (Some(true), None) => args.next().cloned().ok_or_else(|| lacks_value(arg))?,
                    (_, value) => value.unwrap_or_default(),
                };
                found.set.push((letter, value));
            } else if arg.len() > 1 && arg.starts_with('-') {
                found.letters(&arg[1..], spec, &mut args)?;
            } else {
                found.operands.push(arg.clone());
            }
        }
        Ok(found)
    }

    /// Reads the letters of one argument, such as `-la` or `-n5`.
    pub fn letters<'a>(
        &mut self,
        letters: &str,
        spec: &str,
        more: &mut impl Iterator<Item = &'a String>,
    ) -> Result<(), Failure> {
        let mut rest = letters.chars();
        while let Some(letter) = rest.next() {
            match takes_value(spec, letter) {
                None => return Err(unknown(&format!("-{letter}"))),
                Some(false) => self.set.push((letter, String::new())),
                Some(true) => {
                    let value = match rest.as_str() {
                        "" => more
                            .next()
                            .cloned()
                            .ok_or_else(|| lacks_value(&format!("-{letter}")))?,
                        value => value.to_owned(),
                    };
                    self.set.push((letter, value));
                    break;
                }
            }
        }
        Ok(())
    }

    /// Whether the option was given.
    pub fn has(&self, letter: char) -> bool {
        self.set.iter().any(|(set, _)| *set == letter)
    }

    /// The last value of an option.
    pub fn value(&self, letter: char) -> Option<&str> {
        self.set
            .iter()
            .rev()
            .find(|(set, _)| *set == letter)
            .map(|(_, value)| value.as_str())
    }

    /// All values of an option.
    pub fn values(&self, letter: char) -> impl Iterator<Item = &str> {
        self.set
            .iter()
            .filter(move |(set, _)| *set == letter)
            .map(|(_, value)| value.as_str())
    }

    /// All values of several options, in the order in which they were given.
    pub fn of<'o>(&'o self, letters: &'o [char]) -> impl Iterator<Item = (char, &'o str)> {
        let set = self.set.iter().filter(|(set, _)| letters.contains(set));
        set.map(|(set, value)| (*set, value.as_str()))
    }

    /// The last value as a number.
    pub fn number<T: std::str::FromStr>(&self, letter: char) -> Result<Option<T>, Failure> {
        self.value(letter)
            .map(|value| {
                value
                    .parse()
                    .map_err(|_| Failure::usage(format!("{value}: not a number")))
            })
            .transpose()
    }
}

/// `None` when the letter is unknown.
fn takes_value(spec: &str, letter: char) -> Option<bool> {
    let at = spec.find(letter).filter(|_| letter != ':')?;
    Some(spec[at + letter.len_utf8()..].starts_with(':'))
}

fn unknown(option: &str) -> Failure {
    Failure::usage(format!(
        "unknown option {option} (the toolbox knows the common ones; see `help`)"
    ))
}

fn lacks_value(option: &str) -> Failure {
    Failure::usage(format!("option {option} needs a value"))
}
