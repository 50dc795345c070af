/* Who is counted as one: an IPv4 address, or the IPv6 network of 64 bits that one customer has (RFC 6177), as by the login service. */
function of(r) {
    const address = r.rawVariables.binary_remote_addr;
    return address.slice(0, address.length == 16 ? 8 : 4).toString('hex');
}

export default {of};
