-- Three reads and two edits. The server is chosen by HAProxy itself.
core.register_action("edits", { "http-req" }, function(txn)
    local tenant = txn.sf:req_hdr("x-tenant")
    local plan = txn.sf:req_hdr("x-plan")
    local agent = txn.sf:req_hdr("user-agent")
    txn.http:req_set_header("X-Route", tenant .. "/" .. plan)
    txn.http:req_set_header("X-Client", string.find(agent, "Mobile", 1, true) and "mobile" or "desktop")
end)
