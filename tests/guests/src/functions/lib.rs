//! Functions over `wasi:config`, `wasi:keyvalue` and `wasi:logging`, to be called one by one: a component
//! that has nothing to run. [`world.wit`](wit/world.wit) says what there is.

wit_bindgen::generate!({ path: "wit", world: "functions", generate_all });

use wasi::config::store as config;
use wasi::keyvalue::store::{Bucket, Error, open};
use wasi::keyvalue::{atomics, batch};
use wasi::logging::logging::log;

struct Functions;

export!(Functions);

impl Guest for Functions {
    fn greet(name: String) -> String {
        format!("hello {name}")
    }

    fn setting(key: String) -> Result<Option<String>, String> {
        config::get(&key).map_err(|error| format!("{error:?}"))
    }

    fn settings(prefix: String) -> Result<Vec<String>, String> {
        let all = config::get_all().map_err(|error| format!("{error:?}"))?;
        let names = all.into_iter().map(|(name, _)| name);
        let mut names: Vec<_> = names.filter(|name| name.starts_with(&prefix)).collect();
        names.sort();
        Ok(names)
    }

    fn put(bucket: String, key: String, value: String) -> Result<(), String> {
        opened(&bucket)?.set(&key, value.as_bytes()).map_err(told)
    }

    fn take(bucket: String, key: String) -> Result<Option<String>, String> {
        let value = opened(&bucket)?.get(&key).map_err(told)?;
        Ok(value.map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    fn forget(bucket: String, key: String) -> Result<(), String> {
        opened(&bucket)?.delete(&key).map_err(told)
    }

    fn count(bucket: String, key: String, by: u64) -> Result<u64, String> {
        atomics::increment(&opened(&bucket)?, &key, by).map_err(told)
    }

    fn fill(bucket: String, many: u32) -> Result<u32, String> {
        let bucket = opened(&bucket)?;
        let pairs: Vec<_> = (0..many).map(|n| (format!("key-{n}"), b"x".to_vec())).collect();
        batch::set_many(&bucket, &pairs).map_err(told)?;
        let (mut listed, mut cursor) = (0, None);
        loop {
            let page = bucket.list_keys(cursor).map_err(told)?;
            listed += page.keys.len() as u32;
            match page.cursor {
                Some(next) => cursor = Some(next),
                None => return Ok(listed),
            }
        }
    }

    fn say(level: Level, context: String, message: String) {
        log(level, &context, &message);
    }
}

fn opened(bucket: &str) -> Result<Bucket, String> {
    open(bucket).map_err(told)
}

fn told(error: Error) -> String {
    match error {
        Error::NoSuchStore => "no such store".to_owned(),
        Error::AccessDenied => "access denied".to_owned(),
        Error::Other(why) => why,
    }
}
