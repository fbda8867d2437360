;; Asks for a function that this version of the interface does not have.
(component
  (import "waypost:policy/host@0.1.0" (instance (export "teleport" (func))))
  (instance $i)
  (export "waypost:policy/about@0.1.0" (instance $i))
  (export "waypost:policy/balance@0.1.0" (instance $i)))
