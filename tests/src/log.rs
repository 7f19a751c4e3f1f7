//! The output of a process, line by line.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::PATIENCE;

/// The output of a process so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log(Arc<(Mutex<String>, Condvar)>);

impl Log {
    pub(crate) fn follow(&self, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let (text, changed) = &*log.0;
                let mut text = text.lock().expect("no panic under this lock");
                text.push_str(&line);
                text.push('\n');
                changed.notify_all();
            }
        })
    }

    pub(crate) fn text(&self) -> String {
        self.0.0.lock().expect("no panic under this lock").clone()
    }

    pub(crate) fn wait_for(&self, part: &str, times: usize) {
        let (text, changed) = &*self.0;
        let end = Instant::now() + PATIENCE;
        let mut text = text.lock().expect("no panic under this lock");
        while text.matches(part).count() < times {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let so_far = text.clone();
                // The thread that follows the process, and what stops it, go on.
                drop(text);
                panic!("waited for {part:?} in the log:\n{so_far}");
            }
            (text, _) = changed.wait_timeout(text, left).expect("no panic under this lock");
        }
    }
}
