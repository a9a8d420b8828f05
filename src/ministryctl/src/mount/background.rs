//! The two processes of a mount in the background.
//!
//! The first starts this program again with the same arguments, and a variable in its environment
//! that says so; waits for its report, a line on its standard output; and ends. The second is the
//! leader of a session of its own, so it has no terminal and outlives the first.
//!
//! When the second ends without a report, the first says where its log is.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, anyhow};

use crate::failure::{Failure, Kind};
use crate::mount::plan::Plan;
use crate::mount::{place, usage};

/// Set in the environment of the process in the background.
const VARIABLE: &str = "MINISTRY_MOUNT_REPORTS";
/// The report that all is well.
const MOUNTED: &str = "mounted";

/// Whether this is the process in the background.
pub fn is_the_background_process() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts the process in the background and waits for its report.
pub fn start(plan: &Plan) -> Result<(), Failure> {
    // What the person can mend at once is refused before anything is started.
    let place = place::check(&plan.directory, plan.options.non_empty)?;
    let log = match &plan.options.log {
        Some(log) => log.clone(),
        None => default_log(&place)?,
    };
    let log_file = open_log(&log)?;
    let program = std::env::current_exe().context("cannot find the program itself")?;
    let mut words = std::env::args_os();
    let mut child = Command::new(program)
        // The name says whether it is the helper of mount(8).
        .arg0(words.next().unwrap_or_default())
        .args(words)
        .env(VARIABLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log_file)
        .spawn()
        .context("cannot start the process that serves the mount")?;
    let output = child.stdout.take().ok_or_else(|| anyhow!("the process has no output"))?;
    let mut report = String::new();
    BufReader::new(output).read_line(&mut report).context("cannot read the report")?;
    match parse_report(report.trim_end()) {
        Some(Ok(())) => Ok(()),
        Some(Err(failure)) => Err(failure),
        None => {
            let status = child.wait().context("cannot wait for the process")?;
            let text = format!(
                "the process that serves the mount ended ({status}): see its log {}",
                log.display()
            );
            Err(Failure::text(Kind::Failed, text))
        }
    }
}

fn parse_report(line: &str) -> Option<Result<(), Failure>> {
    if line == MOUNTED {
        return Some(Ok(()));
    }
    let (kind, text) = line.split_once(' ')?;
    let kind = [Kind::Failed, Kind::Usage, Kind::Unreachable, Kind::Credentials, Kind::Unknown]
        .into_iter()
        .find(|known| (*known as i32).to_string() == kind)?;
    Some(Err(Failure::text(kind, text)))
}

fn report_line(failure: &Failure) -> String {
    format!("{} {}", failure.kind as i32, failure.to_string().replace('\n', " "))
}

/// The process in the background could not mount.
pub fn report_failure(failure: &Failure) {
    report(&report_line(failure));
}

/// The process in the background has mounted. From now on nobody reads its output.
pub fn report_mounted() {
    report(MOUNTED);
    if let Ok(nowhere) = OpenOptions::new().write(true).open("/dev/null") {
        // Else a later word on it would fail.
        let _ = rustix::stdio::dup2_stdout(nowhere);
    }
}

fn report(line: &str) {
    let mut output = std::io::stdout().lock();
    // Who should read it may have been ended.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// Leaves the terminal and the working directory of whoever started it.
pub fn detach() {
    // Fails only for the leader of a group, which a process that was just started is not.
    if let Err(error) = rustix::process::setsid() {
        tracing::debug!(%error, "no session of its own");
    }
    // Else the working directory could not be unmounted.
    if let Err(error) = std::env::set_current_dir("/") {
        tracing::debug!(%error, "cannot leave the working directory");
    }
}

fn default_log(place: &Path) -> Result<PathBuf, Failure> {
    let folder = if rustix::process::geteuid().is_root() {
        PathBuf::from("/var/log/ministry")
    } else {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let state = variable("XDG_STATE_HOME").map(PathBuf::from);
        let home = || variable("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let state = state.or_else(home);
        state.ok_or_else(|| usage("HOME is not set: name a log file with --log"))?.join("ministry")
    };
    Ok(folder.join(log_name(place)))
}

/// One file for each place: `/mnt/a` logs to `mount-mnt-a.log`.
fn log_name(place: &Path) -> String {
    let place = place.to_string_lossy();
    format!("mount-{}.log", place.trim_matches('/').replace('/', "-"))
}

fn open_log(path: &Path) -> Result<File, Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let made = folder
        .map_or(Ok(()), |folder| DirBuilder::new().recursive(true).mode(0o755).create(folder));
    made.and_then(|()| OpenOptions::new().create(true).append(true).open(path)).map_err(|error| {
        usage(format!(
            "cannot open the log file {}: {error}; name another with --log",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_reaches_the_first_process_with_its_kind_on_one_line() {
        let failure = Failure::text(Kind::Unreachable, "no node answers:\nrefused");
        let line = report_line(&failure);
        let read = parse_report(&line).unwrap().unwrap_err();
        assert_eq!(
            (read.kind, read.to_string()),
            (failure.kind, "no node answers: refused".into())
        );
        assert!(matches!(parse_report(MOUNTED), Some(Ok(()))));
        assert!(parse_report("").is_none());
        assert!(parse_report("panicked at").is_none());
    }

    #[test]
    fn each_place_has_a_log_of_its_own() {
        assert_eq!(log_name(Path::new("/mnt/ministry")), "mount-mnt-ministry.log");
    }
}
