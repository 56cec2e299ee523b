//! For tests: a module that does nothing but pass calls on, driven call by call.

use std::fmt::Write as _;

use wasmtime::{Config, Engine, Instance, Linker, Memory, Module, Store, Val, ValType};
use wasmtime_wasi::p1::WasiP1Ctx;

use super::errno::Errno;
use super::{FdHost, FdTable, FdView, add_to_linker};

struct State {
    wasi: WasiP1Ctx,
    fds: FdTable,
}

impl FdHost for State {
    fn fds(&mut self) -> FdView<'_> {
        FdView {
            wasi: &mut self.wasi,
            fds: &mut self.fds,
        }
    }
}

/// The module, and its memory of one page.
pub(in crate::sockets::p1) struct Caller {
    store: Store<State>,
    instance: Instance,
    memory: Memory,
}

/// A module that exports, for each function and its types of parameters, one that calls it.
pub(in crate::sockets::p1) fn passing_on<'a>(
    functions: impl IntoIterator<Item = (&'a str, String)>,
) -> String {
    let (mut imports, mut exports) = (String::new(), String::new());
    for (name, parameters) in functions {
        let count = parameters.split(' ').count();
        let arguments: String = (0..count).map(|n| format!(" (local.get {n})")).collect();
        let signature = format!("(param {parameters}) (result i32)");
        let _ = writeln!(
            imports,
            "(import \"wasi_snapshot_preview1\" \"{name}\" (func ${name} {signature}))"
        );
        let _ = writeln!(
            exports,
            "(func (export \"{name}\") {signature} (call ${name}{arguments}))"
        );
    }
    format!("(module {imports} (memory (export \"memory\") 1) {exports})")
}

impl Caller {
    /// Links the functions, given as names and types of parameters, with what `table` makes.
    pub(in crate::sockets::p1) async fn start<'a>(
        functions: impl IntoIterator<Item = (&'a str, String)>,
        mut wasi: WasiP1Ctx,
        table: impl FnOnce(&Module, &mut WasiP1Ctx) -> FdTable,
    ) -> Self {
        let engine = Engine::new(&Config::new()).unwrap();
        let module = wat::parse_str(passing_on(functions)).unwrap();
        let module = Module::new(&engine, module).unwrap();
        let fds = table(&module, &mut wasi);
        let mut linker = Linker::new(&engine);
        add_to_linker(&mut linker, &module).unwrap();
        let mut store = Store::new(&engine, State { wasi, fds });
        let instance = linker.instantiate_async(&mut store, &module).await.unwrap();
        let memory = instance.get_memory(&mut store, "memory").unwrap();
        Self {
            store,
            instance,
            memory,
        }
    }

    /// Calls a function; 64-bit parameters are given as 32-bit ones.
    pub(in crate::sockets::p1) async fn call(&mut self, name: &str, arguments: &[i32]) -> Errno {
        let function = self.instance.get_func(&mut self.store, name).unwrap();
        let kinds = function.ty(&self.store);
        let values: Vec<Val> = kinds
            .params()
            .zip(arguments)
            .map(|(kind, value)| match kind {
                ValType::I64 => Val::I64(i64::from(*value)),
                _ => Val::I32(*value),
            })
            .collect();
        let mut result = [Val::I32(-1)];
        function
            .call_async(&mut self.store, &values, &mut result)
            .await
            .unwrap();
        Errno(u16::try_from(result[0].unwrap_i32()).unwrap())
    }

    pub(in crate::sockets::p1) fn read_u32(&self, pointer: u32) -> u32 {
        u32::from_le_bytes(self.bytes(pointer, 4).try_into().unwrap())
    }

    pub(in crate::sockets::p1) fn bytes(&self, pointer: u32, length: u32) -> Vec<u8> {
        self.memory.data(&self.store)[pointer as usize..][..length as usize].to_vec()
    }

    pub(in crate::sockets::p1) fn write(&mut self, pointer: u32, bytes: &[u8]) {
        self.memory.data_mut(&mut self.store)[pointer as usize..][..bytes.len()]
            .copy_from_slice(bytes);
    }
}
