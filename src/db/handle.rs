//! A handle to the thread that owns the connection: everything happens there, one closure after the other.

use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use rusqlite::{Connection, TransactionBehavior};
use tokio::sync::oneshot;

use super::{Error, Tx, open};

type Job = Box<dyn FnOnce(&mut Connection, &Path) + Send>;

/// A database. Clones share the connection; it is closed when the last of them is dropped.
#[derive(Clone, Debug)]
pub struct Db(Arc<Writer>);

#[derive(Debug)]
struct Writer {
    /// Only taken to end the thread.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        // A closure may hold the last handle, and then this is that very thread, which ends by itself.
        if let Some(thread) = self.thread.take().filter(|t| t.thread().id() != thread::current().id()) {
            // It panicked if this is an error, and has said so.
            let _ = thread.join();
        }
    }
}

impl Db {
    /// Opens the database at `path`; makes it, and directories that are missing, and migrates it to the newest schema.
    ///
    /// # Errors
    /// [`Error::Newer`] and [`Error::Corrupt`], which leave the file as it was; [`Error::Locked`], [`Error::NoSpace`],
    /// [`Error::File`], [`Error::Sqlite`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::start(open::open(path)?, path)
    }

    /// Opens an empty database that is gone when its last handle is dropped.
    ///
    /// # Errors
    /// [`Error::Sqlite`] if memory is short, [`Error::File`] if no thread can be started.
    pub fn memory() -> Result<Self, Error> {
        Self::start(open::memory()?, Path::new(":memory:"))
    }

    /// Opens a copy of the database at `path`, on the disk but without a name, that is gone when its last handle is
    /// dropped; an empty one if there is none.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn scratch(path: &Path) -> Result<Self, Error> {
        Self::start(open::scratch(path)?, path)
    }

    /// Lets `f` look at the database, at one moment of it. A change that it tries to make is an error.
    ///
    /// `f` runs even when the future is dropped.
    ///
    /// # Errors
    /// Those of `f`; [`Error::Stopped`] if it or an earlier closure panicked.
    pub async fn read<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        wait(self.send(|conn, file| read(conn, file, f))?).await
    }

    /// Lets `f` change the database, in one transaction that is on the disk when this returns `Ok`.
    ///
    /// `f` runs, and its changes are kept, even when the future is dropped.
    ///
    /// # Errors
    /// Those of `f`, after which nothing is changed; [`Error::NoSpace`], [`Error::Locked`], [`Error::Sqlite`] of the
    /// commit; [`Error::Stopped`] if `f` or an earlier closure panicked.
    pub async fn commit<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        wait(self.send(|conn, file| commit(conn, file, f))?).await
    }

    /// Does as [`Db::read`], for threads without a runtime; panics inside one.
    ///
    /// # Errors
    /// As [`Db::read`].
    pub fn read_now<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        receive(self.send(|conn, file| read(conn, file, f))?)
    }

    /// Does as [`Db::commit`], for threads without a runtime; panics inside one.
    ///
    /// # Errors
    /// As [`Db::commit`].
    pub fn commit_now<T: Send + 'static>(
        &self,
        f: impl FnOnce(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        receive(self.send(|conn, file| commit(conn, file, f))?)
    }

    fn start(mut conn: Connection, path: &Path) -> Result<Self, Error> {
        let (jobs, todo) = mpsc::channel::<Job>();
        let file = path.to_owned();
        // A panic in a job unwinds through here: the transaction is rolled back, the connection closed, and all who
        // wait or ask later are told that the thread has stopped.
        let work = move || todo.into_iter().for_each(|job| job(&mut conn, &file));
        let thread = thread::Builder::new().name("db".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::file(error, "start the thread of the database", path))?;
        Ok(Self(Arc::new(Writer { jobs: Some(jobs), thread: Some(thread) })))
    }

    fn send<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection, &Path) -> Result<T, Error> + Send + 'static,
    ) -> Result<oneshot::Receiver<Result<T, Error>>, Error> {
        let (tell, answer) = oneshot::channel();
        let job: Job = Box::new(move |conn, file| {
            // Nobody listens if the future was dropped; the job is done all the same.
            let _ = tell.send(job(conn, file));
        });
        self.0.jobs.as_ref().and_then(|jobs| jobs.send(job).ok()).ok_or(Error::Stopped)?;
        Ok(answer)
    }
}

/// Waits on a thread of the runtime, not in the task: under a paused clock (`tokio::time::pause`) the runtime would
/// take a task that waits for a foreign thread to be idle, and let every timeout pass during a commit.
async fn wait<T: Send + 'static>(answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    tokio::task::spawn_blocking(|| receive(answer)).await.map_err(|_| Error::Stopped)?
}

fn receive<T>(answer: oneshot::Receiver<Result<T, Error>>) -> Result<T, Error> {
    answer.blocking_recv().map_err(|_| Error::Stopped)?
}

fn read<T>(conn: &mut Connection, file: &Path, f: impl FnOnce(&Tx<'_>) -> Result<T, Error>) -> Result<T, Error> {
    let transaction = conn.transaction().map_err(|error| Error::sqlite(error, "begin to read", file))?;
    f(&Tx { conn: &transaction, file, writable: false })
}

fn commit<T>(conn: &mut Connection, file: &Path, f: impl FnOnce(&Tx<'_>) -> Result<T, Error>) -> Result<T, Error> {
    // Immediate: who has to wait for another writer waits here, and not in the middle.
    let transaction = conn
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| Error::sqlite(error, "begin a change", file))?;
    let value = f(&Tx { conn: &transaction, file, writable: true })?;
    crate::step::before("commit");
    transaction.commit().map_err(|error| Error::sqlite(error, "commit a change", file))?;
    Ok(value)
}
