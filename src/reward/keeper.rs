//! Ends what rewards have started with the program that started it, however that ends.
//!
//! A shell of its own group is told, line by line, which process groups are running. It reads until
//! its input is closed: by the program's end, be it by a signal that nobody can catch. Then it kills
//! what is left.

use std::io::{Result, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Signals meant for the program do not end it first.
const SCRIPT: &str = "trap '' HUP INT QUIT TERM; groups=
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- \"-$group\"; done";

/// The groups that are running, and who is told of them.
struct Keeper {
    groups: Vec<u32>,
    shell: Option<Child>,
}

static KEEPER: Mutex<Keeper> = Mutex::new(Keeper {
    groups: Vec::new(),
    shell: None,
});

/// From now on the group of this leader ends with the program.
pub(super) fn keep(leader: u32) -> Result<()> {
    change(|groups| groups.push(leader))
}

/// The group has ended: its number may soon be another's.
pub(super) fn forget(leader: u32) {
    // Nobody is hurt where the shell cannot be told: it is dead.
    let _ = change(|groups| groups.retain(|&group| group != leader));
}

fn change(change: impl FnOnce(&mut Vec<u32>)) -> Result<()> {
    let mut keeper = KEEPER.lock().unwrap_or_else(PoisonError::into_inner);
    change(&mut keeper.groups);
    let groups: Vec<String> = keeper.groups.iter().map(u32::to_string).collect();
    let line = groups.join(" ") + "\n";
    if keeper.groups.is_empty() && keeper.shell.is_none() {
        return Ok(());
    }
    if let Some(shell) = &mut keeper.shell {
        if tell(shell, &line).is_ok() {
            return Ok(());
        }
        // Somebody has killed it; another one takes its place.
        let _ = shell.wait();
    }
    keeper.shell = None;
    let mut shell = start()?;
    tell(&mut shell, &line)?;
    keeper.shell = Some(shell);
    Ok(())
}

fn tell(shell: &mut Child, line: &str) -> Result<()> {
    match &mut shell.stdin {
        Some(input) => input.write_all(line.as_bytes()),
        None => Ok(()),
    }
}

fn start() -> Result<Child> {
    use std::os::unix::process::CommandExt;
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(SCRIPT).process_group(0);
    shell.stdin(Stdio::piped());
    shell.stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}
