//! Parts of files of the Hugging Face Hub, read where they are; nothing goes into the cache.

use std::cell::Cell;
use std::io::Read;
use std::path::{Path, PathBuf};

use aisp_llama::reward::Files;
use aisp_llama::{Error, Result};

use super::hub::{PATIENCE, Repository, cache_folder, check_token, refusal};

/// The files of a repository.
pub struct RemoteFiles {
    name: String,
    names: Vec<String>,
    repository: Repository,
    agent: ureq::Agent,
    token: Option<String>,
    read: Cell<u64>,
}

impl RemoteFiles {
    /// Asks the hub for the names of the repository's files.
    pub fn new(name: &str, token: Option<&str>) -> Result<Self> {
        check_token(token)?;
        let failed = |reason| Error::Model {
            path: name.into(),
            reason,
        };
        // Where the cache would be.
        let folder = cache_folder().unwrap_or_default();
        let repository = Repository::new(name, &folder, token).map_err(failed)?;
        let names = repository.list().map_err(failed)?.names();
        let [connect, all] = PATIENCE;
        let agent = ureq::Agent::config_builder()
            .timeout_connect(Some(connect))
            .timeout_global(Some(all))
            .build();
        Ok(Self {
            name: name.to_owned(),
            names,
            repository,
            agent: agent.into(),
            token: token.filter(|token| !token.is_empty()).map(str::to_owned),
            read: Cell::new(0),
        })
    }

    /// Bytes that came so far, descriptions included.
    pub fn bytes_read(&self) -> u64 {
        self.read.get()
    }
}

impl Files for RemoteFiles {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn has(&self, file: &Path) -> bool {
        self.names.iter().any(|name| Path::new(name) == file)
    }

    fn read(&self, file: &Path, offset: u64, length: u64) -> Result<Vec<u8>> {
        let name = file.to_string_lossy();
        let failed = |reason: String| Error::Model {
            path: PathBuf::from(&self.name),
            reason: format!("{name}: {reason}"),
        };
        let last = offset.saturating_add(length.max(1) - 1);
        let mut request = self.agent.get(self.repository.url(&name));
        request = request.header("Range", format!("bytes={offset}-{last}"));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        let mut answer = request
            .call()
            .map_err(|error| failed(refusal(&error, "file")))?;
        // A server that sends the whole file is read no further than the part.
        if offset > 0 && answer.status() != 206 {
            let reason = "the server sends no parts of files; download it, and give its folder";
            return Err(failed(reason.into()));
        }
        let mut bytes = Vec::new();
        let body = answer.body_mut().as_reader();
        body.take(length)
            .read_to_end(&mut bytes)
            .map_err(|error| failed(format!("{error}; run it again")))?;
        self.read.set(self.read.get() + bytes.len() as u64);
        Ok(bytes)
    }
}
