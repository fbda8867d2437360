(component (instance $i) (export "waypost:policy/about@0.2.0" (instance $i)) (export "waypost:policy/balance@0.2.0" (instance $i)))
