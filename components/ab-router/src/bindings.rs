//! Generated from `wit/`: the assignment door's export, and the key-value store of hosts of Spin. Its
//! older interface is synchronous, as the assignment door is.
#![expect(unsafe_code, reason = "generated")]
#![expect(clippy::mem_forget, reason = "generated")]

wit_bindgen::generate!({
    inline: "
        package spinfer:ab-router;

        world component {
            import fermyon:spin/key-value@2.0.0;
            export spinfer:experiment/assignment@0.1.0;
        }
    ",
    path: ["../../wit/spinfer-experiment", "../../wit/fermyon-spin"],
    world: "spinfer:ab-router/component",
    generate_all,
});

export!(AbRouter);

/// What is exported.
pub(crate) struct AbRouter;
