//! `spinfer watch`: serves an application, and serves it again when one of its files changes.
//!
//! The application runs as `spinfer up` in a process of its own. A change is built if a build command
//! watches the file, then checked, and only then replaces the process: until then, and if it is broken,
//! the version before it is served.

mod arguments;
mod server;
mod watched_files;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Args;
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, Watcher};

use self::arguments::UpArguments;
use self::server::Server;
use self::watched_files::{Change, WatchedFiles};
use super::build;
use super::up::UpOptions;

#[derive(Debug, Args)]
pub struct WatchOptions {
    #[command(flatten)]
    up: UpOptions,

    /// Do not run the build commands of the manifest
    #[arg(long, conflicts_with = "build")]
    skip_build: bool,

    /// Time without a further change before a change is served
    #[arg(long, value_name = "DURATION", default_value = "100ms",
          value_parser = humantime::parse_duration)]
    debounce: Duration,
}

/// What the command waits for.
#[derive(Debug)]
enum Event {
    /// Files that changed.
    Changed(Vec<PathBuf>),
    /// The server with this process id has exited.
    Exited(u32),
    /// SIGTERM or SIGINT.
    Stop,
}

/// Serves an application until SIGTERM or SIGINT.
///
/// # Errors
/// If files cannot be watched, or `spinfer up` cannot be started. Problems of the application are
/// printed, and the next change is awaited.
pub fn run(options: &WatchOptions) -> Result<()> {
    let (sender, events) = mpsc::channel();
    server::forward_signals(sender.clone())?;
    let arguments = UpArguments::new(std::env::args_os().skip(1))?;
    let mut watch = Watch { options, arguments, sender, events, server: None, watching: None };
    watch.refresh(None)?;
    while let Some(changed) = watch.next_change()? {
        watch.refresh(Some(&changed))?;
    }
    watch.stop()
}

struct Watch<'a> {
    options: &'a WatchOptions,
    arguments: UpArguments,
    sender: Sender<Event>,
    events: Receiver<Event>,
    server: Option<Server>,
    /// The files of the application, and what reports their changes.
    watching: Option<(WatchedFiles, RecommendedWatcher)>,
}

impl Watch<'_> {
    /// Builds, checks and serves what `changed` affects: everything at first.
    fn refresh(&mut self, changed: Option<&[PathBuf]>) -> Result<()> {
        let builds = match (changed, &self.watching) {
            (Some(changed), Some((files, _))) => {
                let changes = changed.iter().filter_map(|path| Some((path, files.change(path)?)));
                let changes: Vec<_> = changes.collect();
                let Some((first, _)) = changes.first() else { return Ok(()) };
                note(format_args!("{} changed", files.shown(first)));
                changes.iter().any(|(_, change)| *change == Change::Source)
            }
            _ => true,
        };
        self.watch_files()?;
        if builds && !self.options.skip_build && !self.build() {
            return Ok(());
        }
        if let Some(server) = &self.server {
            let checked = server::check(&self.arguments)?;
            if !checked {
                note(format_args!(
                    "not served; still serving the version before (process {})",
                    server.id()
                ));
                return Ok(());
            }
        }
        if let Some(server) = self.server.take() {
            server.stop();
        }
        self.server = Some(Server::start(&mut self.arguments, self.sender.clone())?);
        Ok(())
    }

    /// Watches the files that the manifest names now, or those of before if it cannot be read.
    fn watch_files(&mut self) -> Result<()> {
        let up = &self.options.up;
        let before = self.watching.take().map(|(files, _)| files);
        let files = WatchedFiles::read(up.manifest(), before)?;
        let manifest = absolute(&up.manifest().path());
        let sender = self.sender.clone();
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                let Ok(event) = event else { return };
                if event.need_rescan() {
                    // Events were lost: any file can have changed.
                    let _ = sender.send(Event::Changed(vec![manifest.clone()]));
                } else if is_change(event.kind) {
                    let _ = sender.send(Event::Changed(event.paths));
                }
            })?;
        for (folder, mode) in files.folders() {
            watcher
                .watch(&folder, mode)
                .with_context(|| format!("cannot watch {}", folder.display()))?;
        }
        self.watching = Some((files, watcher));
        Ok(())
    }

    /// Runs the build commands. False if one fails, which is printed.
    fn build(&mut self) -> bool {
        let built = self.options.up.manifest().load().and_then(|(manifest, base)| {
            let has_builds = manifest.component.values().any(|component| component.build.is_some());
            if has_builds {
                build::run_commands(&manifest, &base, &mut io::stderr())
            } else {
                Ok(())
            }
        });
        // The commands wrote components: only sources that changed meanwhile are changes.
        thread::sleep(self.options.debounce);
        let events: Vec<_> = self.events.try_iter().collect();
        for event in events {
            let kept = match (event, &self.watching) {
                (Event::Changed(paths), Some((files, _))) => {
                    let is_source = |path: &PathBuf| files.change(path) == Some(Change::Source);
                    let sources: Vec<_> = paths.into_iter().filter(is_source).collect();
                    (!sources.is_empty()).then_some(Event::Changed(sources))
                }
                (event, _) => Some(event),
            };
            if let Some(event) = kept {
                let _ = self.sender.send(event);
            }
        }
        if let Err(error) = built {
            note(format_args!("{error:#}"));
            match &self.server {
                Some(server) => note(format_args!(
                    "not built; still serving the version before (process {})",
                    server.id()
                )),
                None => note(format_args!("not built; waiting for a change")),
            }
            return false;
        }
        true
    }

    /// The files of the next change, once nothing more has changed for a while. `None` after a signal.
    fn next_change(&mut self) -> Result<Option<Vec<PathBuf>>> {
        let mut changed: Vec<PathBuf> = Vec::new();
        let mut last_change = Instant::now();
        loop {
            let event = if changed.is_empty() {
                self.events.recv().context("events end only with the process")?
            } else {
                // Events of other files do not prolong the wait.
                let remaining = self.options.debounce.saturating_sub(last_change.elapsed());
                if remaining.is_zero() {
                    return Ok(Some(changed));
                }
                match self.events.recv_timeout(remaining) {
                    Ok(event) => event,
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                        return Ok(Some(changed));
                    }
                }
            };
            match event {
                Event::Stop => return Ok(None),
                Event::Exited(id) => {
                    if self.server.take_if(|server| server.id() == id).is_some() {
                        note(format_args!("`spinfer up` ended; waiting for a change"));
                    }
                }
                Event::Changed(paths) => {
                    if let Some((files, _)) = &self.watching {
                        let before = changed.len();
                        changed
                            .extend(paths.into_iter().filter(|path| files.change(path).is_some()));
                        if changed.len() > before {
                            last_change = Instant::now();
                        }
                    }
                }
            }
        }
    }

    fn stop(self) -> Result<()> {
        if let Some(server) = self.server {
            server.stop();
        }
        Ok(())
    }
}

/// Whether an event changes a file's content or name.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Create(_) | EventKind::Remove(_) => true,
        EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
        EventKind::Any | EventKind::Access(_) | EventKind::Other => false,
    }
}

/// Prints a line of this command, as opposed to one of the server.
fn note(line: std::fmt::Arguments<'_>) {
    // An error of standard error cannot be reported anywhere.
    let _ = writeln!(io::stderr(), "watch: {line}");
}

/// The arguments of a command for this process's binary.
fn own_binary() -> Result<OsString> {
    std::env::current_exe().map(Into::into).context("the path of this binary is not known")
}

/// A path from the working directory, as absolute as watched paths are.
fn absolute(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    absolute.canonicalize().unwrap_or(absolute)
}
