//! Running commands in a machine.

use crate::qemu::AgentStream;
use anyhow::{Context, Result, bail};
use lab_agent::{Frame, FrameKind};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The connection to a machine's agent.
pub struct Agent {
    stream: Mutex<AgentStream>,
    state: Arc<Shared>,
    name: String,
}

/// Number of a command that is running, or has ended and was not waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(u32);

/// Output of a command so far.
#[derive(Default)]
struct Job {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// File that gets both streams instead.
    log: Option<File>,
    status: Option<i32>,
}

/// Result of a command: exit status and output.
#[derive(Debug)]
pub struct Ended {
    /// Exit status; 128 and the signal's number where a signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<JobId, Job>,
    last: u32,
    pongs: u32,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main loop of a thread: sorts the machine's messages.
    fn listen(&self, mut stream: AgentStream) {
        while let Ok(frame) = Frame::read(&mut stream) {
            let mut state = self.lock();
            let job = state.jobs.get_mut(&JobId(frame.job));
            match (frame.kind, job) {
                (FrameKind::Ping, _) => state.pongs += 1,
                (FrameKind::Stdout | FrameKind::Stderr, Some(Job { log: Some(log), .. })) => {
                    let _ = log.write_all(&frame.payload);
                }
                (FrameKind::Stdout, Some(job)) => job.stdout.extend(&frame.payload),
                (FrameKind::Stderr, Some(job)) => job.stderr.extend(&frame.payload),
                (FrameKind::Exit, Some(job)) => {
                    let status = frame.payload.first_chunk().map(|b| i32::from_le_bytes(*b));
                    job.status = Some(status.unwrap_or(-1));
                }
                _ => {}
            }
            drop(state);
            self.changed.notify_all();
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

impl Agent {
    /// Connects to the agent of machine `name`.
    pub fn new(name: &str, stream: AgentStream) -> Result<Agent> {
        let state = Arc::new(Shared::default());
        let (reader, shared) = (stream.try_clone()?, Arc::clone(&state));
        thread::Builder::new()
            .name(format!("agent {name}"))
            .spawn(move || shared.listen(reader))?;
        Ok(Agent { stream: Mutex::new(stream), state, name: name.to_owned() })
    }

    fn send(&self, kind: FrameKind, job: JobId, payload: Vec<u8>) -> Result<()> {
        let mut stream = self.stream.lock().unwrap_or_else(PoisonError::into_inner);
        Frame { kind, job: job.0, payload }
            .write(&mut *stream)
            .with_context(|| format!("machine {} has gone", self.name))
    }

    fn begin(&self, kind: FrameKind, payload: Vec<u8>, log: Option<File>) -> Result<JobId> {
        let id = {
            let mut state = self.state.lock();
            state.last += 1;
            let id = JobId(state.last);
            state.jobs.insert(id, Job { log, ..Job::default() });
            id
        };
        self.send(kind, id, payload)?;
        Ok(id)
    }

    /// Waits until the agent answers.
    pub fn wait_ready(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        self.send(FrameKind::Ping, JobId(0), Vec::new())?;
        self.wait_for(deadline, "its agent", |state| (state.pongs > 0).then_some(()))
    }

    /// Makes the machine mount its root file system.
    pub fn set_up(&self, setup: &lab_agent::Setup, patience: Duration) -> Result<()> {
        let job = self.begin(FrameKind::Setup, setup.encode(), None)?;
        let ended = self.wait(job, patience, "its file system")?;
        if ended.code != 0 {
            bail!("machine {}: {}", self.name, ended.stderr.trim());
        }
        Ok(())
    }

    /// Makes a program the machine's first process, beside which the agent goes on. No command may
    /// be running.
    pub fn leave_to(&self, command: &str, patience: Duration) -> Result<()> {
        let job = self.begin(FrameKind::Init, command.as_bytes().to_vec(), None)?;
        let ended = self.wait(job, patience, "the agent beside another first process")?;
        if ended.code != 0 {
            bail!("machine {}: {command}: {}", self.name, ended.stderr.trim());
        }
        Ok(())
    }

    /// Starts a shell command. Its output goes to `log`, where there is one.
    pub fn start(&self, command: &str, log: Option<File>) -> Result<JobId> {
        self.begin(FrameKind::Run, command.as_bytes().to_vec(), log)
    }

    /// Waits for a command's end; kills it after `patience`. `what` is for the error.
    pub fn wait(&self, job: JobId, patience: Duration, what: &str) -> Result<Ended> {
        let deadline = Instant::now() + patience;
        let done = self.wait_for(deadline, what, |state| {
            let status = state.jobs.get(&job)?.status?;
            state.jobs.remove(&job).map(|job| (status, job))
        });
        let (code, job) = match done {
            Ok(done) => done,
            Err(error) => {
                let _ = self.send(FrameKind::Kill, job, Vec::new());
                return Err(error);
            }
        };
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ended { code, stdout: text(job.stdout), stderr: text(job.stderr) })
    }

    /// Whether a command has not ended yet.
    pub fn runs(&self, job: JobId) -> bool {
        self.state.lock().jobs.get(&job).is_some_and(|job| job.status.is_none())
    }

    fn wait_for<T>(
        &self,
        deadline: Instant,
        what: &str,
        mut look: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return Ok(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.closed {
                bail!("machine {} has ended while the lab waited for {what}", self.name);
            }
            if left.is_zero() {
                bail!("machine {}: waited in vain for {what}", self.name);
            }
            state = self
                .state
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}
