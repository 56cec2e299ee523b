//! Hostile programs that are no test guests: values as large as they may be, and images made anew for each pod.

/// Asks the host for 16 MiB of random bytes, which is all it gives at once, then for a setting whose name has 16 MiB, which is
/// all it takes; and begins again.
pub(super) const GIANTS: &str = r#"(component
  (import "wasi:random/insecure@0.2.0" (instance $random
    (export "get-insecure-random-bytes" (func (param "len" u64) (result (list u8))))))
  (import "wasi:config/store@0.2.0-rc.1" (instance $config
    (type $failure (variant (case "upstream" string) (case "io" string)))
    (export "error" (type $error (eq $failure)))
    (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
  (core module $libc
    ;; A page for what is returned, then the random bytes, then the name, which is never written.
    (memory (export "memory") 544)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 65536)))
  (core instance $libc (instantiate $libc))
  (core func $bytes (canon lower (func $random "get-insecure-random-bytes")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $get (canon lower (func $config "get")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $main
    (import "host" "bytes" (func $bytes (param i64 i32)))
    (import "host" "get" (func $get (param i32 i32 i32)))
    (func $ask (export "run") (result i32)
      (loop $again
        (call $bytes (i64.const 16777216) (i32.const 0))
        (call $get (i32.const 16908288) (i32.const 16777216) (i32.const 0))
        (br $again))
      (i32.const 0)))
  (core instance $main (instantiate $main (with "host" (instance
    (export "bytes" (func $bytes)) (export "get" (func $get))))))
  (func $run (result (result)) (canon lift (core func $main "run")))
  (instance $exports (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $exports)))"#;

/// Functions of which only the last is wrong: that shows when the others have been compiled.
pub(super) fn malformed(serial: u64) -> String {
    module(serial, 100, "(drop (i32.add))")
}

/// Some megabytes of code.
pub(super) fn slow(serial: u64) -> String {
    module(serial, 2_000, "")
}

fn module(serial: u64, functions: u64, last: &str) -> String {
    let mut text =
        format!(r#"(module (memory (export "memory") 1) (global i64 (i64.const {serial}))"#);
    for number in 0..functions {
        text.push_str("(func (param i64 i64) (result i64)");
        for step in 0..100 {
            let factor = number * 1000 + step;
            text.push_str(&format!(
                "(local.set {} (i64.xor (i64.mul (local.get 0) (i64.const {factor})) (i64.rotl (local.get 1) (i64.const {step}))))",
                step % 2
            ));
        }
        text.push_str("(i64.add (local.get 0) (local.get 1)))");
    }
    text.push_str(&format!(r#"(func (export "_start") {last}))"#));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_can_be_assembled() {
        for text in [GIANTS.to_owned(), malformed(1), slow(1)] {
            wat::parse_str(text).unwrap();
        }
        assert_ne!(malformed(1), malformed(2));
    }
}
