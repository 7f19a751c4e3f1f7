//! Generated from `wit/`: the export of the assignment door, and the imports of Spin's key-value store and
//! variables. Their older interfaces are synchronous, as the assignment door is.
#![expect(unsafe_code, reason = "generated")]
#![expect(clippy::mem_forget, reason = "generated")]

wit_bindgen::generate!({
    inline: "
        package spinfer:ab-router;

        world component {
            import fermyon:spin/key-value@2.0.0;
            import fermyon:spin/variables@2.0.0;
            export spinfer:experiment/assignment@0.2.0;
        }
    ",
    path: ["../../wit/spinfer-experiment", "../../wit/fermyon-spin"],
    world: "spinfer:ab-router/component",
    generate_all,
});

export!(AbRouter);

/// The exported component.
pub(crate) struct AbRouter;
