//! Models of the Hugging Face Hub, in the cache where llama.cpp has them.
//!
//! What llama.cpp has fetched is used here, and the other way round. Where the hub has no answer,
//! the files in the cache are what there is. A file stands under its name once it is whole; of one
//! that is not, the next run fetches the rest.
//!
//! Source: `common/hf-cache.cpp` and `common/download.cpp` of the pinned llama.cpp.

use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use aisp_llama::{Error, Result};
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, CacheRepo, Repo};
use serde::Deserialize;

use super::hub_names::{Source, choose, is_hash, is_inside, list};
use super::{output, values};

/// How often a broken connection is taken up again.
const RETRIES: usize = 2;
/// How long the hub has to be reached, and to list its files.
pub(super) const PATIENCE: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

#[derive(Debug, clap::Args)]
pub struct HubArgs {
    /// A model of the Hugging Face Hub instead of -m, fetched into llama.cpp's cache (-hf) [default quant: Q4_K_M, else Q8_0, else the first there is]
    #[arg(
        long,
        value_name = "OWNER/NAME[:QUANT]",
        env = "LLAMA_ARG_HF_REPO",
        value_parser = values::reason(Source::parse),
        help_heading = "Models"
    )]
    pub hf_repo: Option<Source>,
    /// The file of it, instead of a quant (-hff)
    #[arg(
        long,
        value_name = "FILE",
        env = "LLAMA_ARG_HF_FILE",
        help_heading = "Models"
    )]
    pub hf_file: Option<String>,
    /// Access token for it (-hft)
    #[arg(
        long,
        value_name = "TOKEN",
        env = "HF_TOKEN",
        hide_env_values = true,
        help_heading = "Models"
    )]
    pub hf_token: Option<String>,
    #[arg(skip)]
    fetched: OnceLock<PathBuf>,
}

impl HubArgs {
    /// The model's file, where one of the hub is asked for; the first call fetches it.
    pub fn path(&self) -> Result<Option<PathBuf>> {
        let Some(source) = &self.hf_repo else {
            return match &self.hf_file {
                Some(_) => Err(Error::field("hf-file", "it only goes with `hf-repo`")),
                None => Ok(None),
            };
        };
        if let Some(path) = self.fetched.get() {
            return Ok(Some(path.clone()));
        }
        check_token(self.hf_token.as_deref())?;
        let path = self.fetch(source).map_err(|reason| Error::Model {
            path: PathBuf::from(&source.repo),
            reason,
        })?;
        Ok(Some(self.fetched.get_or_init(|| path).clone()))
    }

    fn fetch(&self, source: &Source) -> std::result::Result<PathBuf, String> {
        let folder =
            cache_folder().ok_or("there is no cache folder; set HF_HOME or LLAMA_CACHE")?;
        let (quant, file) = (source.quant.as_deref(), self.hf_file.as_deref());
        let repository = Repository::new(&source.repo, &folder, self.hf_token.as_deref())?;
        let why = match repository.list() {
            Ok(listing) => {
                let names = listing.names();
                let wanted = choose(&names, quant, file)?;
                let paths = wanted.iter().map(|name| repository.get(&listing, name));
                return Ok(paths.collect::<std::result::Result<Vec<_>, _>>()?.remove(0));
            }
            Err(why) => why,
        };
        let (snapshot, names) = repository.cached();
        match choose(&names, quant, file) {
            Ok(files) => {
                output::note(&format!("{}: {why}; taken from the cache", source.repo));
                Ok(snapshot.join(files[0]))
            }
            Err(_) => {
                let there = match names.is_empty() {
                    true => "nothing of it is".to_owned(),
                    false => list(names.into_iter().filter(|name| name.ends_with(".gguf"))),
                };
                let folder = folder.display();
                Err(format!(
                    "{why}; {there} cached in {folder}; or give a file with `model`"
                ))
            }
        }
    }
}

/// Refuses what cannot be a token.
pub(super) fn check_token(token: Option<&str>) -> Result<()> {
    let is_token = |token: &str| token.bytes().all(|byte| byte.is_ascii_graphic());
    match token.is_none_or(is_token) {
        true => Ok(()),
        false => {
            let reason = "no token: there are spaces or signs in it that none has";
            Err(Error::field("hf-token", reason))
        }
    }
}

/// What the environment says, unless it is empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The folder of llama.cpp's cache.
pub(super) fn cache_folder() -> Option<PathBuf> {
    let places = [
        ("LLAMA_CACHE", ""),
        ("HF_HUB_CACHE", ""),
        ("HUGGINGFACE_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
        ("HOME", ".cache/huggingface/hub"),
    ];
    let mut set = places.iter().filter_map(|(name, below)| {
        let base = std::env::var_os(name).filter(|value| !value.is_empty())?;
        Some(match below.is_empty() {
            true => PathBuf::from(base),
            false => Path::new(&base).join(below),
        })
    });
    std::path::absolute(set.next()?).ok()
}

/// One repository, there and in the cache.
pub(super) struct Repository {
    there: ApiRepo,
    here: CacheRepo,
}

/// What is in a repository.
#[derive(Deserialize)]
pub(super) struct Listing {
    /// The commit.
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    #[serde(rename = "blobId")]
    blob: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: String,
}

impl Listing {
    pub(super) fn names(&self) -> Vec<String> {
        let names = self.siblings.iter().map(|file| &file.rfilename);
        names.filter(|name| is_inside(name)).cloned().collect()
    }
}

impl Sibling {
    /// What the file is called in the folder of blobs.
    fn blob(&self) -> Option<&str> {
        let lfs = self.lfs.as_ref().map(|lfs| lfs.sha256.as_str());
        let blob = lfs.or(self.blob.as_deref());
        blob.filter(|hash| is_hash(hash, &[40, 64]))
    }
}

impl Repository {
    pub(super) fn new(
        name: &str,
        folder: &Path,
        token: Option<&str>,
    ) -> std::result::Result<Self, String> {
        let cache = Cache::new(folder.to_path_buf());
        let token = token.filter(|token| !token.is_empty());
        let mut builder = ApiBuilder::from_cache(cache.clone())
            .with_token(token.map(str::to_owned))
            .with_retries(RETRIES)
            .with_progress(std::io::stderr().is_terminal());
        if let Some(url) = variable("MODEL_ENDPOINT").or_else(|| variable("HF_ENDPOINT")) {
            builder = builder.with_endpoint(url.trim_end_matches('/').to_owned());
        }
        let api = builder.build().map_err(|error| error.to_string())?;
        Ok(Self {
            there: api.model(name.to_owned()),
            here: cache.repo(Repo::model(name.to_owned())),
        })
    }

    /// What the hub has; the reason where it does not say.
    pub(super) fn list(&self) -> std::result::Result<Listing, String> {
        let [connect, all] = PATIENCE;
        let answer = self
            .there
            .info_request()
            .query("blobs", "true")
            .config()
            .timeout_connect(Some(connect))
            .timeout_global(Some(all))
            .build()
            .call()
            .and_then(|mut response| response.body_mut().read_to_string())
            .map_err(|error| refusal(&error, "repository"))?;
        let listing: Listing = serde_json::from_str(&answer)
            .map_err(|error| format!("the hub's list of its files cannot be read: {error}"))?;
        match is_hash(&listing.sha, &[40]) {
            true => Ok(listing),
            false => Err(format!("the hub names no commit but {:?}", listing.sha)),
        }
    }

    /// Where a file is.
    pub(super) fn url(&self, name: &str) -> String {
        self.there.url(name)
    }

    /// Where a file of the listing is in the cache, fetched if it is not there.
    fn get(&self, listing: &Listing, name: &str) -> std::result::Result<PathBuf, String> {
        let failed = |reason: String| format!("{name}: {reason}");
        let of_disk = |error: std::io::Error| failed(error.to_string());
        let place = self.here.pointer_path(&listing.sha).join(name);
        let file = listing.siblings.iter().find(|f| f.rfilename == name);
        let (blob, size) = file.map_or((None, None), |file| (file.blob(), file.size));
        let blob = blob.map(|hash| self.here.blob_path(hash));
        if let Some(blob) = blob.as_ref().filter(|_| !place.exists()) {
            // Fetched for another commit, or by a program that did not come to link it.
            if blob.exists() {
                link(blob, &place, name).map_err(of_disk)?;
            }
            // Nothing is left to ask for behind a part that is as long as the whole.
            let part = blob.with_extension("part");
            let length = fs::metadata(&part).map_or(0, |found| found.len());
            if size.is_some_and(|size| length >= size) {
                fs::remove_file(&part).map_err(of_disk)?;
            }
        }
        if place.exists() {
            // A cache that others keep may not be for writing.
            if self.branch().as_ref() != Some(&listing.sha) {
                self.here.create_ref(&listing.sha).map_err(of_disk)?;
            }
            return Ok(place);
        }
        let fetched = self.there.download(name);
        let path = fetched.map_err(|error| failed(broken(&error)))?;
        let length = fs::metadata(&path).map_err(of_disk)?.len();
        if let Some(size) = size.filter(|&size| size != length) {
            // Both the file and its name.
            for path in [fs::canonicalize(&path).ok(), Some(path)].iter().flatten() {
                let _ = fs::remove_file(path);
            }
            let reason = format!("{length} bytes came instead of {size}; run it again");
            return Err(failed(reason));
        }
        Ok(path)
    }

    /// The commit that the cache has of the main branch, else of any.
    fn branch(&self) -> Option<String> {
        let refs = self.here.pointer_path("").with_file_name("refs");
        let mut branches = vec![refs.join("main")];
        branches.extend(entries(&refs));
        branches.iter().find_map(|branch| {
            let text = fs::read_to_string(branch).ok()?;
            let commit = text.lines().next()?;
            is_hash(commit, &[40]).then(|| commit.to_owned())
        })
    }

    /// The folder of that commit in the cache, and the files in it.
    fn cached(&self) -> (PathBuf, Vec<String>) {
        let mut names = Vec::new();
        let Some(commit) = self.branch() else {
            return (PathBuf::new(), names);
        };
        let snapshot = self.here.pointer_path(&commit);
        let mut folders = vec![snapshot.clone()];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder) {
                if path.is_dir() {
                    folders.push(path);
                } else if path.exists()
                    && let Ok(name) = path.strip_prefix(&snapshot)
                {
                    names.push(name.to_string_lossy().into_owned());
                }
            }
        }
        names.sort();
        (snapshot, names)
    }
}

/// What is in a folder.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let found = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = found.map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Gives the blob a name in a snapshot.
fn link(blob: &Path, place: &Path, name: &str) -> std::io::Result<()> {
    if let Some(folder) = place.parent() {
        fs::create_dir_all(folder)?;
    }
    #[cfg(unix)]
    {
        // Out of the folders of the name, of the commit and of all snapshots.
        let up = "../".repeat(Path::new(name).components().count() + 1);
        let hash = blob.file_name().unwrap_or_default();
        std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(hash), place)
    }
    #[cfg(not(unix))]
    {
        let _ = name;
        fs::rename(blob, place)
    }
}

/// Why a file did not come, and what to do.
fn broken(error: &ApiError) -> String {
    match error {
        ApiError::RequestError(error) => refusal(error, "file"),
        ApiError::TooManyRetries(error) => broken(error),
        ApiError::LockAcquisition(_) => {
            "another process is fetching it; run it again when that is done".to_owned()
        }
        other => format!("{other}; run it again, and the rest is fetched"),
    }
}

/// Why the hub has no answer, and what to do.
pub(super) fn refusal(error: &ureq::Error, what: &str) -> String {
    match error {
        ureq::Error::StatusCode(status @ (401 | 403)) => format!(
            "the hub refuses it ({status}): no such {what}, or one for those with a token; check \
             the name, accept the terms on its page if there are any, and give `hf-token` or set \
             HF_TOKEN"
        ),
        ureq::Error::StatusCode(404) => {
            format!("the hub has no such {what} (404); check the name")
        }
        ureq::Error::StatusCode(status) => {
            format!("the hub fails ({status}); try again later")
        }
        other => format!("the hub cannot be reached ({other})"),
    }
}
