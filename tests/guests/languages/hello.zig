//! Says what it was given and reads a file: a command in Zig for wasm32-wasi, without any libc.
//!
//!     hello FILE
const std = @import("std");

pub fn main(init: std.process.Init) !void {
    var arguments = try init.minimal.args.iterateAllocator(init.gpa);
    _ = arguments.skip();
    const path = arguments.next() orelse return error.NoFile;
    const text = try std.Io.Dir.cwd().readFileAlloc(init.io, path, init.gpa, .limited(4096));
    const colour = init.environ_map.get("COLOUR") orelse "no colour";
    std.debug.print("zig {s} {s}\n", .{ colour, std.mem.trim(u8, text, "\n") });
}
