(component (instance $i) (export "example:other/thing@1.0.0" (instance $i)))
