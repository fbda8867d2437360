(component (instance $i) (export "waypost:policy/about@0.1.0" (instance $i)))
